"""Events: the facts and requests in the ledger of a run.  `fsm` defines their effects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Event kinds; stored, never renamed."""

    SUBMITTED = "submitted"
    STOP_REQUESTED = "stop_requested"
    PAUSE_REQUESTED = "pause_requested"
    RESUME_REQUESTED = "resume_requested"
    HOLD = "hold"
    RELEASE = "release"
    SET = "set"
    DISPATCHED = "dispatched"
    REGISTERED = "registered"
    SPAWNED = "spawned"
    STARTED = "started"
    PAUSED = "paused"
    CONTINUED = "continued"
    RELEASED = "released"
    LIMIT_REACHED = "limit_reached"
    EXITED = "exited"
    FINISHED = "finished"
    BROKE = "broke"
    SPAWN_FAILED = "spawn_failed"
    DEADLINE_MISSED = "deadline_missed"
    LOST = "lost"
    UNKILLABLE = "unkillable"
    REQUEUED = "requeued"
    GAVE_UP = "gave_up"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Event:
    """One fact or request.  `who` is a user name, or "daemon", "shim", "launcher"; `data` is JSON-safe."""

    kind: Kind
    at: float
    who: str = "daemon"
    data: Mapping[str, Any] = field(default_factory=dict)
