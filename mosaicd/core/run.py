"""The run record: all facts about one run that must survive a crash of the daemon.

A `Run` is immutable; only `core.fsm.apply` returns the next one.  Values that change too often to be events
(heartbeats, cursors, last values) are in `Progress`, which is kept in memory and written with the
next event, or within about a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from mosaicd.protocol import Json
from mosaicd.protocol.records.orders import GRACE_S, HANDSHAKE_TIMEOUT_S
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, RunKind, State, Want

#: Causes of the machine, not of the run: retried if `retries` allows it and `retry_on` is empty.
INFRASTRUCTURE_CAUSES = (
    CauseKind.SHIM_LOST,
    CauseKind.REBOOTED,
    CauseKind.HANDSHAKE_TIMEOUT,
    CauseKind.GPU_LOST,
    CauseKind.PREEMPTED,
    CauseKind.DISK_FULL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.  `_at` wall clock (Unix seconds), `_s` seconds, `memory_mb` MiB; tuples for lists."""

    # submitted; only `set` changes it
    run_id: str
    owner_uid: int
    owner: str
    kind: RunKind
    name: str
    command: tuple[str, ...]
    digest: str
    created_at: float
    worker_kind: str | None = None
    worker_id: str | None = None
    key: str | None = None
    origin: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    cwd: str | None = None
    cpus: int = 1
    gpus: int = 0
    gpus_mandatory: bool = False
    memory_mb: int | None = None
    stdin_bytes: int | None = None
    time_limit_s: float | None = None
    max_steps: int | None = None
    grace_s: float = GRACE_S
    retries: int = 0
    retry_on: tuple[CauseKind, ...] = INFRASTRUCTURE_CAUSES
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    start_timeout_s: float | None = None
    heartbeat_timeout_s: float | None = None
    stall_s: float | None = None
    can_pause: bool = False
    can_checkpoint: bool = False

    # observed
    state: State = State.INIT
    released: bool = False
    attempt: int = 0
    retries_used: int = 0
    quick_deaths: int = 0
    nonce: str | None = None
    slots: tuple[int, ...] = ()
    cpus_granted: int | None = None
    gpus_granted: int | None = None
    shim_pid: int | None = None
    shim_start_ticks: int | None = None
    pid: int | None = None
    start_ticks: int | None = None
    boot_id: str | None = None
    containment: str | None = None
    limits: Mapping[str, int] | None = None
    dispatched_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    active_s: float = 0.0
    steps_before: int = 0
    exit: Mapping[str, Any] | None = None
    fault: Mapping[str, Any] | None = None
    unkillable: bool = False
    outcome: Outcome | None = None
    cause: Mapping[str, Any] | None = None

    # requested
    want: Want = Want.RUN
    pause_mode: PauseMode | None = None
    stop: Mapping[str, Any] | None = None
    held: bool = False
    not_before: float | None = None

    rev: int = 0

    @property
    def is_final(self) -> bool:
        """Whether the run has ended and cannot change again."""
        return self.state is State.TERM

    @property
    def is_waiting(self) -> bool:
        """Whether the run holds no slots and may be in the queue."""
        return self.state is State.INIT or (self.state is State.PAUSE and self.released)

    @property
    def is_holding(self) -> bool:
        """Whether the run holds CPU or GPU slots."""
        return not self.is_final and not self.is_waiting

    def to_dict(self) -> Json:
        """Return a JSON-safe dictionary that `from_dict` converts to an equal run."""
        return {f.name: _to_json(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the run for a dictionary of `to_dict`; raise ValueError or TypeError for unknown fields and
        words."""
        values = dict(data)
        for name, convert in _CONVERT.items():
            if values.get(name) is not None:
                values[name] = convert(values[name])
        return cls(**values)


def _to_json(value: Any) -> Any:
    """Return the value of a field as `json.dumps` takes it and `from_dict` reads it.

    Tuples become lists, and words of an enum become str.  A mapping is copied one level deep: its values are
    JSON already.
    """
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, str) else value


_CONVERT: dict[str, Any] = {
    "kind": RunKind,
    "command": tuple,
    "retry_on": lambda words: tuple(CauseKind(word) for word in words),
    "state": State,
    "slots": tuple,
    "outcome": Outcome,
    "want": Want,
    "pause_mode": PauseMode,
}


@dataclass(slots=True)
class Progress:
    """The last values of a live run: overwritten by every advance, never an event."""

    telemetry_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    steps: int | None = None
    episodes: int | None = None
    total_steps: int | None = None
    total_episodes: int | None = None
    steps_per_s: float | None = None
    resumed_from: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    last_heartbeat_at: float | None = None
    metrics: Json = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the fields that clients see under `progress`."""
        names = (
            "steps",
            "episodes",
            "total_steps",
            "total_episodes",
            "telemetry_seq",
            "stdout_bytes",
            "stderr_bytes",
            "steps_per_s",
        )
        return {name: getattr(self, name) for name in names}

    def dump(self) -> Json:
        """Return all fields, for the registry."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def after_exit(self, exit: Mapping[str, Any]) -> "Progress":
        """Return the last values from the exit record, which has the final counts of the shim."""
        names = (
            "telemetry_seq", "stdout_bytes", "stderr_bytes", "steps", "episodes", "metrics", "resumed_from",
            "checkpoint",
        )  # fmt: skip
        final = {name: exit[name] for name in names if exit.get(name) is not None}
        return replace(self, **final, last_heartbeat_at=exit.get("finished_at") or self.last_heartbeat_at)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Return the progress for a dictionary of `dump`; unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})
