"""The files of an attempt directory: launch.json, started.json, exit.json; the contract is mosaic-rundir(5).

The shim fills every field.  A reader may find any of them missing, because the files belong to the user
(see `untrusted`).  The facts `spawned` and `exited` carry the same records over the socket.
"""

from typing import ClassVar

from mosaicd.protocol.records.record import Record


class Launch(Record):
    """launch.json: the launch order without its secrets, and the shim that carries it out."""

    run_id: str | None = None
    attempt: int | None = None
    nonce: str | None = None
    argv: tuple[str, ...] = ()
    cwd: str | None = None
    slots: tuple[int, ...] = ()
    cpus: int | None = None
    kind: str | None = None
    shim_pid: int | None = None
    shim_started_at: int | None = None  # in clock ticks since boot
    boot_id: str | None = None
    at: float | None = None


class EnforcedLimits(Record):
    """The limits that the control groups of a run enforce; an absent value means no limit."""

    OMITTED: ClassVar = frozenset(("memory_bytes", "tasks", "cpu_weight"))

    memory_bytes: int | None = None
    tasks: int | None = None
    cpu_weight: int | None = None


class Started(Record):
    """started.json: the process of the worker, and the containment of its process tree."""

    pid: int | None = None
    start_ticks: int | None = None
    boot_id: str | None = None
    pgid: int | None = None
    sid: int | None = None
    containment: str | None = None
    limits: EnforcedLimits | None = None
    cgroup: str | None = None
    at: float | None = None


class Stop(Record):
    """A stop or a limit that the shim began to enforce: cause, requester, and whether KILL was needed."""

    kind: str | None = None
    who: str | None = None
    reason: str | None = None
    forced: bool | None = None
    grace_s: float | None = None
    at: float | None = None


class Usage(Record):
    """The resources that the worker and its descendants used, from wait4(2)."""

    utime_s: float | None = None
    stime_s: float | None = None
    maxrss_kb: int | None = None


class OutOfMemory(Record):
    """Processes that the kernel killed.  Without `limit_bytes`, the machine itself had no memory left."""

    OMITTED: ClassVar = frozenset(("limit_bytes", "peak_bytes", "refusals"))

    victims: int | None = None
    limit_bytes: int | None = None
    peak_bytes: int | None = None
    refusals: int | None = None


class PostMortemSummary(Record):
    """The summary of a post-mortem: the place in its code at which a run made no progress."""

    OMITTED: ClassVar = frozenset(("state", "waits_in", "python", "file"))

    processes: int | None = None
    state: str | None = None
    waits_in: str | None = None
    python: str | None = None
    file: str | None = None


class Checkpoint(Record):
    """A checkpoint that the worker reported."""

    OMITTED: ClassVar = frozenset(("sha256",))

    path: str | None = None
    step: int | None = None
    at: float | None = None
    sha256: str | None = None


class Shed(Record):
    """Output and records that were dropped because of a limit or a full disk."""

    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    telemetry_records: int | None = None


class Counts(Record):
    """The cursors and last values of an attempt; exit.json and every advance contain them."""

    telemetry_seq: int
    stdout_bytes: int
    stderr_bytes: int
    steps: int | None
    episodes: int | None
    metrics: dict[str, int | float]
    resumed_from: Checkpoint | None
    checkpoint: Checkpoint | None


class Exit(Record):
    """exit.json: the end of the attempt."""

    run_id: str | None = None
    attempt: int | None = None
    nonce: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    core_dumped: bool | None = None
    started_at: float | None = None
    finished_at: float | None = None
    rusage: Usage | None = None
    stop: Stop | None = None
    released: bool | None = None
    last_word: str | None = None
    error: str | None = None
    fault: str | None = None
    oom: OutOfMemory | None = None
    active_s: float | None = None
    post_mortem: PostMortemSummary | None = None
    steps_are_global: bool | None = None
    telemetry_seq: int | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    steps: int | None = None
    episodes: int | None = None
    metrics: dict[str, int | float] | None = None
    resumed_from: Checkpoint | None = None
    checkpoint: Checkpoint | None = None
    unparsed_lines: int | None = None
    shed: Shed | None = None
    swept: bool | None = None
    left_processes: int | None = None  # None: not counted, because the attempt was stopped or lost
