"""The enumerations of the lifecycle of a run.  Values are stored and sent: never rename one.

Unknown values from outside are refused, never mapped to a default.

Note: `State` is observed and `Want` is requested; a change of `want` does not change `state` immediately.
"""

from enum import StrEnum


class State(StrEnum):
    """The observed state of a run."""

    INIT = "INIT"
    HSHK = "HSHK"
    RDY = "RDY"
    EXEC = "EXEC"
    PAUSE = "PAUSE"
    FAULT = "FAULT"
    TERM = "TERM"


class Want(StrEnum):
    """The state that the owner or a limit requests."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


class PauseMode(StrEnum):
    """The kind of a requested pause."""

    FREEZE = "freeze"
    COOPERATIVE = "cooperative"
    RELEASE = "release"


class RunKind(StrEnum):
    """The program of a run: a MOSAIC worker (`--worker` or `metadata.worker`), or any other program."""

    WORKER = "worker"
    COMMAND = "command"


class Outcome(StrEnum):
    """The result of a run; present if and only if its state is TERM."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class CauseKind(StrEnum):
    """The cause of a fault or of an end other than a clean success."""

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
    """The action of a submit if the owner already has a live run with the same digest."""

    ATTACH = "attach"
    NEW = "new"
    FAIL = "fail"


#: Status words of older registries and clients -> present states; for filters and imports.
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

#: Older status words that also name an outcome.
LEGACY_OUTCOMES: dict[str, Outcome] = {
    "completed": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
}


def parse_state(word: str) -> State:
    """Return the state that `word` names (a present or older name, any case).

    Raises ValueError if it is unknown.
    """
    state = LEGACY_STATES.get(word.lower())
    if state is None:
        raise ValueError(f"{word!r} is not a state; use one of {', '.join(State)}")
    return state
