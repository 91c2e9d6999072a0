"""Runs in each place of the lifecycle, reached by events alone, and minimal evidence for each event."""

from typing import Any

from mosaicd.core.fsm import Event, Kind, Place, apply, place
from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, RunKind

AT = 1_800_000_000.0

#: The least evidence that each event needs; a test overrides the keys that it checks.
EVIDENCE: dict[Kind, dict[str, Any]] = {
    Kind.DISPATCHED: {"attempt": 1, "nonce": "n1", "slots": [0], "cpus": 1},
    Kind.REGISTERED: {"shim_pid": 10, "shim_start_ticks": 11},
    Kind.SPAWNED: {"pid": 20, "start_ticks": 21, "boot_id": "boot-1", "containment": "process-group"},
    Kind.LIMIT_REACHED: {"kind": "time_limit", "reason": "1h"},
    Kind.EXITED: {"exit_code": 0},
    Kind.FINISHED: {"outcome": "succeeded", "cause": None},
    Kind.BROKE: {"cause": {"kind": "exit_code", "exit_code": 1}},
    Kind.SPAWN_FAILED: {"error": "no such file"},
    Kind.DEADLINE_MISSED: {"kind": "heartbeat_lost"},
    Kind.LOST: {"kind": "shim_lost"},
    Kind.REQUEUED: {"not_before": AT + 60, "cause": {"kind": "shim_lost"}},
    Kind.GAVE_UP: {"outcome": "failed", "cause": {"kind": "exit_code"}},
}

_TO_EXEC = (Kind.DISPATCHED, Kind.REGISTERED, Kind.SPAWNED, Kind.STARTED)
PATHS: dict[Place, tuple[Kind, ...]] = {
    Place.INIT: (),
    Place.HSHK: _TO_EXEC[:1],
    Place.RDY: _TO_EXEC[:3],
    Place.EXEC: _TO_EXEC,
    Place.PAUSE: (*_TO_EXEC, Kind.PAUSE_REQUESTED, Kind.PAUSED),
    Place.RELEASED: (*_TO_EXEC, Kind.PAUSE_REQUESTED, Kind.EXITED, Kind.RELEASED),
    Place.FAULT: (*_TO_EXEC, Kind.LOST),
    Place.TERM: (*_TO_EXEC, Kind.EXITED, Kind.FINISHED),
}


def new_run(**fields: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": "0" * 26, "owner_uid": 1000, "owner": "ada", "kind": RunKind.COMMAND, "name": "taxi",
        "command": ("true",), "digest": "d", "created_at": AT, "rev": 1,
    }  # fmt: skip
    return Run(**{**values, **fields})


def make_event(kind: Kind, /, at: float = AT, who: str = "ada", **data: Any) -> Event:
    """Return an event with the least evidence that it needs."""
    return Event(kind, at, who, {**EVIDENCE.get(kind, {}), **data})


def run_in(where: Place, **fields: Any) -> Run:
    """Return a run that reached the place `where` by the events of PATHS."""
    run = new_run(**fields)
    for kind in PATHS[where]:
        run = apply(run, make_event(kind))
    assert place(run) is where
    return run


def exited(exit: dict[str, Any], **fields: Any) -> Run:
    """Return a run in EXEC with this exit record."""
    run = run_in(Place.EXEC, **fields)
    return apply(run, Event(Kind.EXITED, AT, "shim", exit))


INFRASTRUCTURE = (CauseKind.SHIM_LOST, CauseKind.REBOOTED, CauseKind.HANDSHAKE_TIMEOUT, CauseKind.GPU_LOST,
                  CauseKind.PREEMPTED, CauseKind.DISK_FULL)  # fmt: skip
