"""Every setting, its default, its unit and its range: the one home of every default of the daemon,
but for those that a shim needs too (protocol/records/orders).

A key of the config file is a field here, `[group] name`, and the last part of a name says the unit
(`_s` seconds, `_ms` milliseconds, `_bytes`); what has no unit is a count.  The ranges are wide on
purpose: tests shorten every time limit.
"""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mosaicd.protocol.records import orders

YEAR_S = 31_536_000.0
LEVELS = ("debug", "info", "warning", "error")


def _time(default: float, doc: str, low: float = 0.01, high: float = YEAR_S) -> float:
    """Declare a duration with its closed range."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


def _count(default: int, doc: str, low: int = 1, high: int = 2**40) -> int:
    """Declare a whole number with its closed range."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


def usable_cpus() -> int:
    """Return how many CPUs this process may use (its affinity, not the machine's size)."""
    return max(1, len(os.sched_getaffinity(0)))


def soft_limit_descriptors() -> int:
    """Return how many descriptors this process may have open now (it may raise that to the hard limit)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the daemon keeps its state and listens; absolute."""

    state_dir: Path
    socket: Path


@dataclass(frozen=True, slots=True)
class Cpus:
    """CPU slots that runs share."""

    slots: int = field(
        default_factory=usable_cpus,
        metadata={"doc": "CPU slots to hand out; default: the CPUs it may use", "low": 1, "high": 4096},
    )


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPU slots that runs hold alone."""

    static: int = _count(0, "how many GPU slots there are, numbered from 0; nothing is probed", 0, 64)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each thing may take, in seconds."""

    handshake_s: float = _time(orders.HANDSHAKE_TIMEOUT_S, "from the order to a shim until it has registered")
    start_s: float = _time(60.0, "from a worker's handshake to its first sign of life")
    heartbeat_s: float = _time(300.0, "the longest silence of a worker; any output counts as a sign of life")
    stall_s: float = _time(
        0.0, "how long a worker that lives may report no further step or episode; 0: for ever", 0.0
    )
    post_mortem_s: float = _time(
        orders.POST_MORTEM_S, "for the Python stacks of a silent or stuck run", 0.0, 60.0
    )
    grace_s: float = _time(orders.GRACE_S, "from TERM to KILL, for a run that does not say otherwise", 0.0)
    worker_grace_s: float = _time(
        orders.WORKER_GRACE_S, "the same, for a worker that declares checkpointing", 0.0
    )
    pause_ack_s: float = _time(
        orders.PAUSE_ACK_TIMEOUT_S, "for a worker to acknowledge a pause; then its tree is frozen", 0.0
    )
    unkillable_s: float = _time(10.0, "from KILL until a tree that is still there is called unkillable")
    empty_retry_s: float = _time(0.1, "between two looks at a tree that is not empty yet")
    shim_silence_s: float = _time(30.0, "the longest silence of a living shim or launcher; then it is ended")
    reconcile_s: float = _time(10.0, "for all of the start-up reconciliation together")
    request_s: float = _time(30.0, "for one request, but submit")
    submit_s: float = _time(60.0, "for one submit")
    discovery_s: float = _time(20.0, "for one interpreter to say which workers it has")
    shutdown_s: float = _time(5.0, "for requests in flight to end when the daemon stops", 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much anybody may send, hold or write."""

    request_bytes: int = _count(1 << 20, "the longest request line", 4096, 64 << 20)
    batch: int = _count(50, "requests in one JSON-RPC batch", 1, 1000)
    in_flight: int = _count(64, "requests of one connection that are being worked on", 1, 10_000)
    connections_per_user: int = _count(512, "open connections of one user", 4, 100_000)
    write_buffer_bytes: int = _count(4 << 20, "unsent bytes before a connection is closed", 65536, 1 << 30)
    page_runs: int = _count(200, "runs in one page of run.list unless the request says less", 1, 10_000)
    stdout_bytes: int = _count(
        orders.OUTPUT_LIMIT_BYTES, "stdout that is kept of one attempt: its beginning and its end", 4096
    )
    stderr_bytes: int = _count(
        orders.OUTPUT_LIMIT_BYTES, "stderr that is kept of one attempt: its beginning and its end", 4096
    )
    telemetry_bytes: int = _count(
        orders.TELEMETRY_LIMIT_BYTES, "telemetry that is kept of one attempt, likewise", 65536
    )


@dataclass(frozen=True, slots=True)
class Containment:
    """What holds a run's processes together, and which of its limits are enforced."""

    mode: str = field(
        default="auto",
        metadata={
            "doc": "auto: the strongest there is; cgroup: that or no run; process-group: that and no more",
            "choices": ("auto", "cgroup", "process-group"),
        },
    )
    memory: str = field(
        default="enforce",
        metadata={"doc": "what resources.memory_mb is: a limit, or a word", "choices": ("enforce", "off")},
    )
    tasks: int = _count(16_384, "processes and threads that one run may have at a time", 64, 4_194_304)


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a retry waits (backoff_s, doubled each time, up to backoff_max_s), and what ends it all."""

    backoff_s: float = _time(10.0, "before the first retry", 0.0)
    backoff_max_s: float = _time(600.0, "the longest wait before a retry", 0.0)
    crash_loop_s: float = _time(10.0, "an attempt that lives for less is one of a crash loop", 0.0)
    crash_loop_attempts: int = _count(3, "so many such attempts in a row are the last; 0: any", 0, 1000)


@dataclass(frozen=True, slots=True)
class Registry:
    """How the registry commits and checkpoints."""

    group_commit_ms: float = _time(20.0, "the longest that a row nobody waits for is held", 0.0, 10_000.0)
    checkpoint_interval_s: float = _time(60.0, "between two checkpoints of the write-ahead log")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long ended runs are kept: 0 is for ever.  Live and pinned runs are never taken."""

    age_days: float = _time(0.0, "after its end a run is pruned; 0: never for its age", 0.0, 36_525.0)
    runs_per_user: int = _count(0, "ended runs kept of one user, the oldest go first; 0: all", 0)
    bytes_per_user: int = _count(0, "what the ended runs of one user may take; 0: any", 0, 2**60)
    bytes_total: int = _count(0, "what all ended runs may take; 0: any", 0, 2**60)
    interval_s: float = _time(3600.0, "between two looks at what may go")


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watcher may cost."""

    lag_events: int = _count(1024, "events queued for one watcher before it gets a gap record", 1, 1_000_000)
    progress_interval_s: float = _time(0.5, "between two progress notifications of one run")


@dataclass(frozen=True, slots=True)
class Worker:
    """Where one kind of worker is installed: `[workers.KIND]`."""

    python: str
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """What the daemon tells its operator."""

    level: str = field(
        default="info", metadata={"doc": "the least severe message that is logged", "choices": LEVELS}
    )


@dataclass(frozen=True, slots=True)
class Supervisor:
    """What systemd told this process when it started it; all absent in a terminal.

    Not settings: read from the environment only, and only when meant for this process.
    """

    notify_socket: str | None = None
    watchdog_s: float | None = None
    journal_stream: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, resolved: flags over file over defaults."""

    paths: Paths
    cpus: Cpus = field(default_factory=Cpus)
    gpus: Gpus = field(default_factory=Gpus)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    containment: Containment = field(default_factory=Containment)
    retries: Retries = field(default_factory=Retries)
    registry: Registry = field(default_factory=Registry)
    retention: Retention = field(default_factory=Retention)
    watch: Watch = field(default_factory=Watch)
    workers: Mapping[str, Worker] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    supervisor: Supervisor = field(default_factory=Supervisor)
    config_file: Path | None = None
    crash_at: str | None = None
    """A drill, from the environment only: where daemon, launcher or a shim is to die (crash_points)."""
    soft_limit_descriptors: int = field(default_factory=soft_limit_descriptors)
    """No setting either: the soft limit of open descriptors at the start of the daemon; its runs get it."""

    @property
    def state_dir(self) -> Path:
        """The directory that holds registry and runs."""
        return self.paths.state_dir

    @property
    def socket(self) -> Path:
        """The path that clients and shims connect to."""
        return self.paths.socket


#: Group name -> its class, in the order of the file and the manual; `paths` and `workers` are read apart.
GROUPS: Mapping[str, type] = {
    "cpus": Cpus,
    "gpus": Gpus,
    "timeouts": Timeouts,
    "limits": Limits,
    "containment": Containment,
    "retries": Retries,
    "registry": Registry,
    "retention": Retention,
    "watch": Watch,
    "log": Log,
}
