"""The parameters of every method, as dataclasses: the only declaration of their names and types.

The daemon decodes requests strictly: it refuses unknown fields and reports every fault.  Clients send plain
dictionaries.  The parameters of worker.register, worker.fact and worker.advance are in records/reports.
A field without a default is required.  Ranges, which a type cannot express, are checked by each handler.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from mosaicd.protocol.signals import StopSignal

Cursor = int


@dataclass(frozen=True, slots=True)
class NoParams:
    """A method without parameters."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The protocol version of the client; the reply has the version of the daemon."""

    proto_version: int = 1
    client: str = ""


@dataclass(frozen=True, slots=True)
class InputChunk:
    """Append `data` (base64) to an upload; `offset` is the number of bytes that it has already."""

    upload: str
    offset: int
    data: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Either `config` (a TrainRunConfig) or `command` (argv); the other fields apply to both.

    `caller_environment` has the variables of the caller's shell, `process` its umask, nice, limits and
    affinity; both are outside of the digest.
    `stdin` names an upload of this connection, which becomes the standard input of the run.
    """

    config: dict[str, Any] | None = None
    command: list[str] | None = None
    name: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    memory_mb: int | None = None
    time_limit_s: float | None = None
    max_steps: int | None = None
    priority: int = 0
    retries: int | None = None
    retry_on: list[str] | None = None
    grace_s: float | None = None
    signal_to: Literal["leader", "tree"] | None = None
    signal: StopSignal | None = None
    dedup: Literal["attach", "new", "fail"] | None = None
    key: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    caller_environment: dict[str, str] = field(default_factory=dict)
    process: dict[str, Any] | None = None
    cwd: str | None = None
    stdin: str | None = None
    hold: bool = False
    heartbeat_timeout_s: float | None = None
    handshake_timeout_s: float | None = None
    start_timeout_s: float | None = None
    stall_s: float | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RunRef:
    """One run: its id, a unique prefix of the id, or its name (the newest run with that name)."""

    run_id: str


@dataclass(frozen=True, slots=True)
class ListRuns:
    """Filters; a run must match all of them.  `state` accepts present and older state names."""

    state: list[str] | None = None
    outcome: list[str] | None = None
    live: bool | None = None
    user: str | None = None
    name: str | None = None
    label: dict[str, str] | None = None
    since: float | None = None
    limit: int | None = None
    cursor: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class WatchRuns:
    """Stored events after the seq `since` (0: all; absent: none) or the time `since_at`, then new events."""

    since: Cursor | None = None
    since_at: float | None = None
    epoch: str | None = None
    run_id: str | None = None
    progress: bool = False


@dataclass(frozen=True, slots=True)
class Unwatch:
    """End one stream of this connection."""

    subscription: int


@dataclass(frozen=True, slots=True)
class ReadLogs:
    """Output of one stream of one attempt (default: the newest attempt) from the byte offset `cursor`.

    `tail_lines` moves the start to that many lines before the end, `since` (Unix seconds) to the output of
    that time.  With `follow`, notifications continue until the run has ended.
    """

    run_id: str
    stream: Literal["stdout", "stderr", "post-mortem"] = "stdout"
    attempt: int | None = None
    cursor: int = 0
    tail_lines: int | None = None
    since: float | None = None
    limit_bytes: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class ReadTelemetry:
    """Telemetry records with seq > `cursor` and at >= `since`, of one attempt (default: the newest)."""

    run_id: str
    attempt: int | None = None
    cursor: int = 0
    since: float | None = None
    kinds: list[str] | None = None
    limit: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Request a pause.  Without `mode`: cooperative if the worker supports it, otherwise freeze."""

    run_id: str
    mode: Literal["freeze", "cooperative", "release"] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Request that a paused or pausing run continues."""

    run_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Request the end: `signal`, then KILL after `grace_s` (0 is legal; absent: as submitted)."""

    run_id: str
    grace_s: float | None = None
    signal: StopSignal | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SetFields:
    """Change fields of a run that has not ended; absent fields stay.

    `labels` replaces all labels; `label` adds labels, `unlabel` removes labels by key.
    """

    run_id: str
    priority: int | None = None
    labels: dict[str, str] | None = None
    label: dict[str, str] = field(default_factory=dict)
    unlabel: list[str] = field(default_factory=list)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Submit an ended run (the origin) again as a new run, from its last checkpoint unless `fresh`.

    The new run has the variables of the origin.  The daemon does not keep secrets after the end of a run: it
    takes their values from `caller_environment`, the variables of the client's shell.  `environment` is
    always set.  `without` has the names of variables that the new run does not get.
    """

    run_id: str
    fresh: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    caller_environment: dict[str, str] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class PruneRuns:
    """Select ended runs: `runs`, or all that match every filter; without both, as the settings say."""

    runs: list[str] | None = None
    older_than_s: float | None = None
    outcome: list[str] | None = None
    name: str | None = None
    label: dict[str, str] | None = None
    user: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Backup:
    """Write a copy of the registry to `path` (absolute); `force` replaces an existing file."""

    path: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """Import the runs of a registry of the original MOSAIC at `path` (absolute); `dry_run`: only report."""

    path: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Inspect:
    """Inspect the registry and the state directory; `fix` makes the safe repairs."""

    fix: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the run is in one of `states` (default: TERM); timed_out after `timeout_s`."""

    run_id: str
    states: list[str] | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ListWorkers:
    """List the installed workers; `refresh` queries the interpreters again."""

    refresh: bool = False
