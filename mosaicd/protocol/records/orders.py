"""The two orders for a forked shim (launch, teardown), and the limits in them.

The daemon writes an order into a descriptor, the launcher passes the descriptor on, and only the shim reads
it.  A launch order holds the launch secret and the environment of the worker, so it is never a file.
"""

from typing import Literal

from mosaicd.protocol import Json
from mosaicd.protocol.records.record import Record
from mosaicd.protocol.signals import StopSignal

#: Defaults of the settings in `[timeouts]` and `[limits]`, for values that a run does not set.
GRACE_S = 30.0
HANDSHAKE_TIMEOUT_S = 30.0
PAUSE_ACK_TIMEOUT_S = 10.0
POST_MORTEM_S = 2.0
OUTPUT_LIMIT_BYTES = 1 << 30
TELEMETRY_LIMIT_BYTES = 1 << 32

#: Receivers of the signal of a stop, instead of the usual order: the leader alone, or all processes at once.
TO_LEADER, TO_TREE = "leader", "tree"
SignalTo = Literal["leader", "tree"]

_WORKER_ID_LIMIT = 128


class Limits(Record):
    """Limits of one attempt: durations in seconds, sizes in bytes; None: the run has no such limit."""

    time_limit_s: float | None = None
    max_steps: int | None = None
    steps_before: int = 0
    grace_s: float = GRACE_S
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    pause_ack_timeout_s: float = PAUSE_ACK_TIMEOUT_S
    post_mortem_s: float = POST_MORTEM_S
    stdout_limit_bytes: int = OUTPUT_LIMIT_BYTES
    stderr_limit_bytes: int = OUTPUT_LIMIT_BYTES
    telemetry_limit_bytes: int = TELEMETRY_LIMIT_BYTES


class Containment(Record):
    """The limits for the control groups of a run; `required`: without control groups, the attempt fails."""

    required: bool = False
    memory_bytes: int | None = None
    tasks: int | None = None


class ProcessAttributes(Record):
    """What the worker's process has from its submitter; None: as the shim has it.

    `limits`: soft limits by the names of `process_limits`; -1: no limit.
    """

    umask: int | None = None
    nice: int | None = None
    limits: dict[str, int] | None = None
    affinity: tuple[int, ...] | None = None


class LaunchOrder(Record):
    """The order to start one attempt of a run."""

    order: Literal["launch"] = "launch"
    run_id: str
    attempt: int
    nonce: str
    secret: str
    socket: str
    run_dir: str
    attempt_dir: str
    files_dir: str
    kind: str
    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    #: The file that is the standard input of the program; None: /dev/null.
    stdin: str | None = None
    worker_id: str | None = None
    worker_kind: str | None = None
    worker_config: Json | None = None
    config_flag: bool = False
    cooperative: bool = False
    supports_checkpoint: bool = False
    slots: tuple[int, ...] = ()
    cpus: int | None = None
    uid: int | None = None
    signal_to: SignalTo | None = None
    signal: StopSignal | None = None
    limits: Limits = Limits()
    containment: Containment = Containment()
    process: ProcessAttributes = ProcessAttributes()

    @property
    def is_worker(self) -> bool:
        """Whether the program is a MOSAIC worker and not a plain command."""
        return self.kind == "worker"

    @property
    def shown_worker_id(self) -> str:
        """The worker id, or the run id without one; short enough for a message."""
        name = self.worker_id or self.run_id
        return name[:_WORKER_ID_LIMIT].encode("utf-8", "replace").decode()


class Process(Record):
    """A process: its pid and its start time in clock ticks since boot."""

    pid: int
    start_ticks: int


class TeardownLimits(Record):
    """The limits for the end of a process tree."""

    grace_s: float = GRACE_S


class TeardownOrder(Record):
    """The order to end the orphaned process tree of a dead shim.

    `pid` and `start_ticks` are those of the worker in started.json; None if it was never started.
    `given_up_shim`: a shim that is alive and silent; the teardown shim ends it first.
    """

    order: Literal["teardown"] = "teardown"
    run_id: str
    attempt: int
    nonce: str = ""
    attempt_dir: str
    limits: TeardownLimits = TeardownLimits()
    signal_to: SignalTo | None = None
    signal: StopSignal | None = None
    pid: int | None = None
    start_ticks: int | None = None
    given_up_shim: Process | None = None
