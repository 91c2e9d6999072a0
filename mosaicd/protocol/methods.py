"""The table of all methods of the wire; routing, roles, rpc.discover, the manual and tests use it."""

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
    """A method: its name, parameters, role of the caller, name of the result, and whether a stream follows."""

    name: str
    params: type
    role: Role
    result: str
    summary: str
    streams: bool = False
    deadline_s: float | None = 30.0
    since: str = "0.1"


_ROWS = (
    Method("daemon.hello", messages.Hello, Role.ANY, "Hello", "Exchange protocol versions; the reply has the epoch of the ledger."),
    Method("daemon.health", messages.NoParams, Role.ANY, "Health", "Report pid, version, counts, WAL, quarantine and warnings."),
    Method("daemon.inspect", messages.Inspect, Role.ADMIN, "Inspection", "Inspect the registry and the state directory.", deadline_s=None),
    Method("daemon.backup", messages.Backup, Role.ADMIN, "BackedUp", "Write a copy of the registry while it is in use.",
           deadline_s=None),
    Method("daemon.import", messages.Import, Role.ADMIN, "Imported",
           "Import the runs of a registry of the original MOSAIC as ended runs.", deadline_s=None),
    Method("daemon.reexec", messages.NoParams, Role.ADMIN, "Reexec",
           "Replace the daemon with the installed program, in the same process.", deadline_s=None),
    Method("rpc.discover", messages.NoParams, Role.ANY, "OpenRPC", "Describe every method as an OpenRPC document."),
    Method("input.open", messages.NoParams, Role.ANY, "Upload",
           "Begin the upload of the input of a run; it ends with the connection."),
    Method("input.write", messages.InputChunk, Role.ANY, "Uploaded", "Append a chunk to an upload of this connection."),
    Method("run.submit", messages.Submit, Role.ANY, "Run", "Accept a run; the reply means that the run is saved to disk.",
           deadline_s=60.0),
    Method("run.get", messages.RunRef, Role.OWNER, "Run", "Return one run."),
    Method("run.list", messages.ListRuns, Role.ANY, "RunPage", "List live and ended runs in pages, oldest first."),
    Method("run.watch", messages.WatchRuns, Role.ANY, "WatchStart", "Stream ledger events from a cursor.", streams=True),
    Method("run.unwatch", messages.Unwatch, Role.ANY, "Unwatched", "End a stream of this connection."),
    Method("run.logs", messages.ReadLogs, Role.OWNER, "LogChunk", "Read or follow a run's output from a byte cursor.", streams=True),
    Method("run.telemetry", messages.ReadTelemetry, Role.OWNER, "TelemetryPage",
           "Read or follow a run's numbered telemetry.", streams=True),
    Method("run.pause", messages.Pause, Role.OWNER, "Run", "Request a pause; the reply has the new `want`."),
    Method("run.resume", messages.Resume, Role.OWNER, "Run", "Request that a paused run continues."),
    Method("run.stop", messages.Stop, Role.OWNER, "Run", "Request the end: TERM, grace period, KILL."),
    Method("run.hold", messages.RunRef, Role.OWNER, "Run", "Keep a waiting run from starting."),
    Method("run.release", messages.RunRef, Role.OWNER, "Run", "Release a held run, so that it can start."),
    Method("run.set", messages.SetFields, Role.OWNER, "Run", "Change priority, labels or name of a run."),
    Method("run.pin", messages.RunRef, Role.OWNER, "Run", "Pin a run: it is never pruned."),
    Method("run.unpin", messages.RunRef, Role.OWNER, "Run", "Unpin a run: it can be pruned."),
    Method("run.prune", messages.PruneRuns, Role.ANY, "Pruned", "Remove ended runs: directory, row and events.", deadline_s=None),
    Method("run.retry", messages.Retry, Role.OWNER, "Run", "Submit an ended run again, as a new run."),
    Method("run.leftovers", messages.RunRef, Role.OWNER, "Leftovers",
           "Return what a run left behind outside of its directory."),
    Method("run.explain", messages.RunRef, Role.OWNER, "Explanation", "Return every fact that keeps a run from starting."),
    Method("run.environment", messages.RunRef, Role.OWNER, "Environment",
           "Return the environment of a run without its secrets, to its owner."),
    Method("run.wait", messages.Wait, Role.OWNER, "Run", "Answer when the run reaches a state.", deadline_s=None),
    Method("worker.list", messages.ListWorkers, Role.ANY, "Workers", "List the installed workers and their abilities."),
    Method("worker.register", reports.Register, Role.SHIM, "Registered", "Register a shim with the daemon."),
    Method("worker.fact", reports.Facts, Role.SHIM, "FactsAccepted", "Report facts of an attempt, in order."),
    Method("worker.advance", reports.Advance, Role.SHIM, "Nothing", "Report cursors and signs of life (a notification)."),
)  # fmt: skip

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}

#: Notifications that the daemon sends.  To shims: control.*; to clients: streams.
NOTIFICATIONS: dict[str, str] = {
    "control.stop": "End the process tree: {grace_s, signal, kind, who, reason}.",
    "control.pause": "Pause the process tree: {mode}.",
    "control.resume": "Resume the process tree.",
    "run.event": "A ledger event: {subscription, seq, run_id, kind, at, who, data, run}.",
    "run.progress": "Last values of a live run, no ledger event: {subscription, run_id, progress, metrics}.",
    "run.log": "A chunk of output: {subscription, run_id, attempt, stream, offset, cursor, data, encoding, gap}.",
    "run.telemetry": "Telemetry records: {subscription, run_id, attempt, cursor, records}.",
    "run.gap": "Data that a stream left out because its client is slow: {subscription, from, to}.",
    "run.end": "The last message of a stream: {subscription, reason, cursor}.",
}
