"""Every setting of the daemon with its default, unit and range.

Defaults that the shim also needs are in protocol/records/orders.  A key `[group] name` of the settings file
is a field here.  The end of a name is the unit (`_s` seconds, `_ms` milliseconds, `_bytes`); a name without a
unit is a count.  The ranges are wide on purpose: tests shorten every time limit.
"""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mosaicd.protocol.records import orders
from mosaicd.protocol.secrets import SECRET_WORDS

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
    """Return the soft limit of open descriptors of this process."""
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
        metadata={"doc": "CPU slots; default: the CPUs that the daemon may use", "low": 1, "high": 4096},
    )


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPU slots that runs hold alone."""

    static: int = _count(0, "the number of GPU slots, numbered from 0; GPUs are not detected", 0, 64)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of the daemon, in seconds."""

    handshake_s: float = _time(
        orders.HANDSHAKE_TIMEOUT_S, "from the launch order until the shim has registered"
    )
    start_s: float = _time(60.0, "from a worker's handshake to its first sign of life")
    heartbeat_s: float = _time(300.0, "the longest silence of a worker; any output counts as a sign of life")
    stall_s: float = _time(
        0.0, "the longest time without a further step or episode of a live worker; 0: no limit", 0.0
    )
    post_mortem_s: float = _time(
        orders.POST_MORTEM_S, "to collect the Python stacks of a silent or stuck run", 0.0, 60.0
    )
    grace_s: float = _time(orders.GRACE_S, "from TERM to KILL, the default of a run", 0.0)
    pause_ack_s: float = _time(
        orders.PAUSE_ACK_TIMEOUT_S, "for a worker to acknowledge a pause; then its tree is frozen", 0.0
    )
    unkillable_s: float = _time(10.0, "from KILL until a process tree that is not empty counts as unkillable")
    empty_retry_s: float = _time(
        0.1, "the first interval between two checks of a process tree that is not empty"
    )
    shim_silence_s: float = _time(30.0, "the longest silence of a live shim or launcher; then it is killed")
    reconcile_s: float = _time(10.0, "for the reconciliation of all runs at the start")
    request_s: float = _time(30.0, "for one request other than submit")
    submit_s: float = _time(60.0, "for one submit")
    discovery_s: float = _time(20.0, "for one interpreter to list its workers")
    shutdown_s: float = _time(5.0, "for requests in flight to end when the daemon stops", 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of clients and of output."""

    request_bytes: int = _count(1 << 20, "the longest request line", 4096, 64 << 20)
    batch: int = _count(50, "requests in one JSON-RPC batch", 1, 1000)
    in_flight: int = _count(64, "concurrent requests of one connection", 1, 10_000)
    connections_per_user: int = _count(512, "open connections of one user", 4, 100_000)
    uploads_per_user: int = _count(8, "open uploads of one user, see stdin_bytes", 1, 100_000)
    write_buffer_bytes: int = _count(4 << 20, "unsent bytes before a connection is closed", 65536, 1 << 30)
    page_runs: int = _count(200, "runs in one page of run.list; a request may ask for fewer", 1, 10_000)
    stdin_bytes: int = _count(256 << 20, "the largest input of a run (--stdin)", 1, 2**50)
    stdout_bytes: int = _count(
        orders.OUTPUT_LIMIT_BYTES, "stdout that is kept of one attempt: its beginning and its end", 4096
    )
    stderr_bytes: int = _count(
        orders.OUTPUT_LIMIT_BYTES, "stderr that is kept of one attempt: its beginning and its end", 4096
    )
    telemetry_bytes: int = _count(
        orders.TELEMETRY_LIMIT_BYTES,
        "telemetry that is kept of one attempt: its beginning and its end",
        65536,
    )


@dataclass(frozen=True, slots=True)
class Containment:
    """The means that hold the processes of a run, and which limits are enforced."""

    mode: str = field(
        default="auto",
        metadata={
            "doc": "auto: the strongest; cgroup: control groups or no start; process-group: none",
            "choices": ("auto", "cgroup", "process-group"),
        },
    )
    memory: str = field(
        default="enforce",
        metadata={"doc": "whether resources.memory_mb is a limit", "choices": ("enforce", "off")},
    )
    tasks: int = _count(16_384, "processes and threads that one run may have at a time", 64, 4_194_304)


@dataclass(frozen=True, slots=True)
class Retries:
    """The wait before a retry (backoff_s, doubled each time, up to backoff_max_s), and crash loops."""

    backoff_s: float = _time(10.0, "before the first retry", 0.0)
    backoff_max_s: float = _time(600.0, "the longest wait before a retry", 0.0)
    crash_loop_s: float = _time(10.0, "an attempt that ends sooner counts towards a crash loop", 0.0)
    crash_loop_attempts: int = _count(
        3, "after this many such attempts in a row there is no retry; 0: no limit", 0, 1000
    )


@dataclass(frozen=True, slots=True)
class Registry:
    """How the registry commits and checkpoints."""

    group_commit_ms: float = _time(
        20.0, "the longest delay of a change without a waiting client", 0.0, 10_000.0
    )
    checkpoint_interval_s: float = _time(60.0, "between two checkpoints of the write-ahead log")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long ended runs are kept; 0 means no limit.  Live and pinned runs are never deleted."""

    age_days: float = _time(0.0, "days that a run is kept after its end; 0: no limit", 0.0, 36_525.0)
    runs_per_user: int = _count(0, "ended runs that are kept for one user; 0: no limit", 0)
    bytes_per_user: int = _count(0, "bytes of the ended runs of one user; 0: no limit", 0, 2**60)
    bytes_total: int = _count(0, "bytes of all ended runs; 0: no limit", 0, 2**60)
    interval_s: float = _time(3600.0, "between two checks")


@dataclass(frozen=True, slots=True)
class Watch:
    """Limits of watchers."""

    lag_events: int = _count(
        1024, "events that a watcher may lag behind before it gets a gap record", 1, 1_000_000
    )
    progress_interval_s: float = _time(0.5, "between two progress notifications of one run")


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of runs."""

    secret_words: tuple[str, ...] = field(
        default=SECRET_WORDS,
        metadata={"doc": "a variable with one of these words between underscores is a secret", "words": True},
    )


@dataclass(frozen=True, slots=True)
class Worker:
    """The environment of one kind of worker: `[workers.KIND]`."""

    python: str
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """The log."""

    level: str = field(
        default="info", metadata={"doc": "the lowest severity that is logged", "choices": LEVELS}
    )


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Facts from systemd for this process; all absent in a terminal.

    Note: these are not settings.  They come only from the environment, and only if it names this process.
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
    environment: Environment = field(default_factory=Environment)
    workers: Mapping[str, Worker] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    supervisor: Supervisor = field(default_factory=Supervisor)
    config_file: Path | None = None
    crash_at: str | None = None
    """For drills, from the environment only: the crash point at which a process is killed (crash_points)."""
    soft_limit_descriptors: int = field(default_factory=soft_limit_descriptors)
    """Not a setting: the soft limit of open descriptors at the start of the daemon; its runs get it."""

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
    "environment": Environment,
    "log": Log,
}
