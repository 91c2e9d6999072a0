"""Every method of the wire, one row each: the table that dispatch, roles, discovery, manual and tests
share."""

from dataclasses import dataclass
from enum import StrEnum

from mosaicd.protocol import messages
from mosaicd.protocol.records import reports


class Role(StrEnum):
    """The role that a caller needs for a method; all other callers are refused."""

    ANY = "any"
    """Every user that the daemon serves."""
    OWNER = "owner"
    """The run's owner, and admins."""
    ADMIN = "admin"
    """The daemon's own user, root and members of the admin group."""
    SHIM = "shim"
    """A process of the run's owner with the attempt's launch secret or session token."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row: name, parameter type, who may call it, what it answers, whether it streams afterwards."""

    name: str
    params: type
    role: Role
    result: str
    summary: str
    streams: bool = False
    deadline_s: float | None = 30.0
    since: str = "0.1"


_ROWS = (
    Method("daemon.hello", messages.Hello, Role.ANY, "Hello", "Exchange protocol versions and learn the ledger's epoch."),
    Method("daemon.health", messages.NoParams, Role.ANY, "Health", "Report pid, version, counts, WAL, quarantine and warnings."),
    Method("daemon.inspect", messages.Inspect, Role.ADMIN, "Inspection", "Look over registry and state directory.", deadline_s=None),
    Method("daemon.backup", messages.Backup, Role.ADMIN, "BackedUp", "Write a copy of the registry while it is in use.",
           deadline_s=None),
    Method("daemon.import", messages.Import, Role.ADMIN, "Imported",
           "Take the runs of a registry of the original MOSAIC over as history.", deadline_s=None),
    Method("daemon.reexec", messages.NoParams, Role.ADMIN, "Reexec",
           "Become the program that is installed now, in the same process.", deadline_s=None),
    Method("rpc.discover", messages.NoParams, Role.ANY, "OpenRPC", "Describe every method as an OpenRPC document."),
    Method("run.submit", messages.Submit, Role.ANY, "Run", "Accept a run; the reply means that it will not be forgotten.",
           deadline_s=60.0),
    Method("run.get", messages.RunRef, Role.OWNER, "Run", "Return one run."),
    Method("run.list", messages.ListRuns, Role.ANY, "RunPage", "List runs, ended ones too, oldest first, in pages."),
    Method("run.watch", messages.WatchRuns, Role.ANY, "WatchStart", "Stream ledger events from a cursor.", streams=True),
    Method("run.unwatch", messages.Unwatch, Role.ANY, "Unwatched", "End one stream of this connection."),
    Method("run.logs", messages.ReadLogs, Role.OWNER, "LogChunk", "Read or follow a run's output from a byte cursor.", streams=True),
    Method("run.telemetry", messages.ReadTelemetry, Role.OWNER, "TelemetryPage",
           "Read or follow a run's numbered telemetry.", streams=True),
    Method("run.pause", messages.Pause, Role.OWNER, "Run", "Ask for a pause; the reply says what is now wanted."),
    Method("run.resume", messages.Resume, Role.OWNER, "Run", "Ask a paused run to go on."),
    Method("run.stop", messages.Stop, Role.OWNER, "Run", "Ask for the end: TERM, grace, KILL."),
    Method("run.hold", messages.RunRef, Role.OWNER, "Run", "Keep a waiting run from starting."),
    Method("run.release", messages.RunRef, Role.OWNER, "Run", "Let a held run start when its turn comes."),
    Method("run.set", messages.SetFields, Role.OWNER, "Run", "Change priority, labels or name of a run."),
    Method("run.pin", messages.RunRef, Role.OWNER, "Run", "Keep a run from ever being pruned."),
    Method("run.unpin", messages.RunRef, Role.OWNER, "Run", "Let retention have the run again."),
    Method("run.prune", messages.PruneRuns, Role.ANY, "Pruned", "Remove ended runs: directory, row and events.", deadline_s=None),
    Method("run.retry", messages.Retry, Role.OWNER, "Run", "Accept a new run of what an ended one was."),
    Method("run.explain", messages.RunRef, Role.OWNER, "Explanation", "Say every fact that keeps a run from starting."),
    Method("run.wait", messages.Wait, Role.OWNER, "Run", "Answer when the run reaches a state.", deadline_s=None),
    Method("worker.list", messages.ListWorkers, Role.ANY, "Workers", "List installed workers and what they can do."),
    Method("worker.register", reports.Register, Role.SHIM, "Registered", "A shim's handshake."),
    Method("worker.fact", reports.Facts, Role.SHIM, "FactsAccepted", "Facts of an attempt, in order."),
    Method("worker.advance", reports.Advance, Role.SHIM, "Nothing", "Cursors and signs of life (a notification)."),
)  # fmt: skip

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}

#: Notifications that the daemon sends.  To shims: control.*; to clients: streams.
NOTIFICATIONS: dict[str, str] = {
    "control.stop": "End the tree: {grace_s, kind, who, reason}.",
    "control.pause": "Pause the tree: {mode}.",
    "control.resume": "Thaw or resume the tree.",
    "run.event": "A ledger event: {subscription, seq, run_id, kind, at, who, data, run}.",
    "run.progress": "Last values of a live run, no ledger event: {subscription, run_id, progress, metrics}.",
    "run.log": "A chunk of output: {subscription, run_id, attempt, stream, offset, cursor, data, encoding, gap}.",
    "run.telemetry": "Telemetry records: {subscription, run_id, attempt, cursor, records}.",
    "run.gap": "What a slow stream did not get: {subscription, from, to}.",
    "run.end": "The stream's last word: {subscription, reason, cursor}.",
}
