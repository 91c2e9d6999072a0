"""The closed vocabularies of a run's life.  Values are stored and sent: never rename one.

`State` is what was observed, `Want` is what was asked for; a reader who expects one to follow the
other at once gets both wrong.  Unknown values from outside are refused, never mapped to a default.
"""

from enum import StrEnum


class State(StrEnum):
    """What is known to be true of a run (lifecycle table)."""

    INIT = "INIT"
    HSHK = "HSHK"
    RDY = "RDY"
    EXEC = "EXEC"
    PAUSE = "PAUSE"
    FAULT = "FAULT"
    TERM = "TERM"


class Want(StrEnum):
    """What owner or limits ask of a run."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


class PauseMode(StrEnum):
    """How a wanted pause is to happen."""

    FREEZE = "freeze"
    COOPERATIVE = "cooperative"
    RELEASE = "release"


class RunKind(StrEnum):
    """A MOSAIC worker (`--worker` or `metadata.worker`) or any other program."""

    WORKER = "worker"
    COMMAND = "command"


class Outcome(StrEnum):
    """How a run ended; present if and only if its state is TERM."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class CauseKind(StrEnum):
    """Why a run did not simply end clean."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    WORKER_FAILED = "worker_failed"
    OOM = "oom"
    SPAWN_FAILED = "spawn_failed"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    START_TIMEOUT = "start_timeout"
    HEARTBEAT_LOST = "heartbeat_lost"
    STUCK = "stuck"
    TIME_LIMIT = "time_limit"
    STEP_LIMIT = "step_limit"
    SHIM_LOST = "shim_lost"
    REBOOTED = "rebooted"
    DISK_FULL = "disk_full"
    CHECKPOINT_INVALID = "checkpoint_invalid"
    GPU_LOST = "gpu_lost"
    PREEMPTED = "preempted"
    UNKILLABLE = "unkillable"
    BY_USER = "by_user"


class Dedup(StrEnum):
    """What a submit does when the owner already has a live run with the same digest."""

    ATTACH = "attach"
    NEW = "new"
    FAIL = "fail"


#: Status words of older registries and clients -> states of today (filters, imports of old registries).
LEGACY_STATES: dict[str, State] = {
    "pending": State.INIT,
    "init": State.INIT,
    "dispatching": State.HSHK,
    "handshake": State.HSHK,
    "hshk": State.HSHK,
    "ready": State.RDY,
    "rdy": State.RDY,
    "running": State.EXEC,
    "executing": State.EXEC,
    "exec": State.EXEC,
    "paused": State.PAUSE,
    "pause": State.PAUSE,
    "faulted": State.FAULT,
    "fault": State.FAULT,
    "terminated": State.TERM,
    "completed": State.TERM,
    "failed": State.TERM,
    "cancelled": State.TERM,
    "term": State.TERM,
}

#: Older status words that say more than TERM.
LEGACY_OUTCOMES: dict[str, Outcome] = {
    "completed": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
}


def parse_state(word: str) -> State:
    """Return the state that `word` (today's or an older name, any case) means; ValueError otherwise."""
    state = LEGACY_STATES.get(word.lower())
    if state is None:
        raise ValueError(f"{word!r} is not a state; use one of {', '.join(State)}")
    return state
