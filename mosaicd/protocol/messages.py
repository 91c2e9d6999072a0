"""The parameters of every method, as plain dataclasses: the one declaration of their names and types.

The daemon decodes strictly against these (unknown fields are refused, every fault is reported); clients
send plain dictionaries.  The parameters of worker.register, worker.fact and worker.advance are in
records/reports.  A field without a default is required.  Ranges and meanings that a type cannot say are
checked where the request is carried out.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Cursor = int


@dataclass(frozen=True, slots=True)
class NoParams:
    """A method without parameters."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the client speaks; the reply says what the daemon does."""

    proto_version: int = 1
    client: str = ""


@dataclass(frozen=True, slots=True)
class Submit:
    """Either `config` (a TrainRunConfig) or `command` (argv); the rest applies to both."""

    config: dict[str, Any] | None = None
    command: list[str] | None = None
    name: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    time_limit_s: float | None = None
    max_steps: int | None = None
    priority: int = 0
    retries: int | None = None
    retry_on: list[str] | None = None
    grace_s: float | None = None
    dedup: Literal["attach", "new", "fail"] | None = None
    key: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    hold: bool = False
    heartbeat_timeout_s: float | None = None
    handshake_timeout_s: float | None = None
    start_timeout_s: float | None = None
    stall_s: float | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RunRef:
    """One run, by its id, a unique prefix of it, or its name (the newest of that name)."""

    run_id: str


@dataclass(frozen=True, slots=True)
class ListRuns:
    """Filters are joined by AND; `state` takes today's names and older ones."""

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
    """Events after `since` (0: the whole ledger; absent: from now on) or from a time, then live ones."""

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
    """Bytes of one stream of one attempt (default: the newest) from offset `cursor`.

    `tail_lines` starts that many lines before the end instead, `since` (unix seconds) with what was
    written then; with `follow`, notifications go on until the run has ended.
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
    """Telemetry records with seq > `cursor`, and at >= `since`, of one attempt (default: the newest)."""

    run_id: str
    attempt: int | None = None
    cursor: int = 0
    since: float | None = None
    kinds: list[str] | None = None
    limit: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """`mode` freeze, cooperative or release; absent: cooperative where the worker can, else freeze."""

    run_id: str
    mode: Literal["freeze", "cooperative", "release"] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask a paused or pausing run to go on."""

    run_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """TERM, then KILL after `grace_s` (0 is legal; absent: the run's own)."""

    run_id: str
    grace_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SetFields:
    """Change what a waiting run asks for; absent fields stay.

    `labels` are all that it is to have; `label` adds to those it has then, `unlabel` takes some of them away.
    """

    run_id: str
    priority: int | None = None
    labels: dict[str, str] | None = None
    label: dict[str, str] = field(default_factory=dict)
    unlabel: list[str] = field(default_factory=list)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """A new run of what an ended one was; from its last checkpoint unless `fresh`.

    Values of variables are not kept after an end: `environment` offers those that the origin had (more
    are left out), `extra` are set whatever the origin had.
    """

    run_id: str
    fresh: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    allow_missing: bool = False
    key: str | None = None


@dataclass(frozen=True, slots=True)
class PruneRuns:
    """The ended runs named, or all that fit every filter given; nothing given: what the settings give up."""

    runs: list[str] | None = None
    older_than_s: float | None = None
    outcome: list[str] | None = None
    name: str | None = None
    label: dict[str, str] | None = None
    user: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Backup:
    """Write a copy of the registry to `path` (absolute, the daemon's machine); `force` replaces a file."""

    path: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """Take the runs of the original MOSAIC's registry at `path` (absolute) over; `dry_run` only says."""

    path: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look for what is wrong in the state directory; `fix` puts right what is safe to."""

    fix: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Resolve when the run reaches one of `states` (default TERM); timed_out after `timeout_s`."""

    run_id: str
    states: list[str] | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ListWorkers:
    """`refresh` asks the interpreters again instead of answering from what is known."""

    refresh: bool = False
