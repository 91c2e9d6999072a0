"""The runs that a client watches: snapshots from the daemon, updated by later events and progress reports."""

from mosaicctl.changes import changes
from mosaicctl.render import clean, ending_text
from mosaicd.protocol import Json

#: Fields of every event that replace the fields of the run.
_STATE_FIELDS = ("state", "want", "outcome", "rev", "attempt")
_END_FIELDS = (*_STATE_FIELDS, "cause", "left_processes")
#: Fields of a `submitted` event that become fields of the run.
_SUBMITTED_FIELDS = ("name", "owner", "kind", "worker_kind", "priority", "held")
#: Fields of a `set` event that replace the fields of the run.
_SET_FIELDS = ("name", "priority", "labels")
#: Fields of an event that are printed after its kind, in this order.
_PRINTED_FIELDS = ("slots", "cpus", "exit_code", "signal", "mode", "reason", "limit", "not_before", "error")


#: Endings of the kinds of events that a user requested.
_REQUEST_ENDINGS = ("_requested", "hold", "release", "set")


class Board:
    """The newest known object of each run, by id."""

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}

    def put(self, run: Json) -> None:
        """Store a run object, unless the board has a newer one (with a higher rev)."""
        known = self.runs.get(run["run_id"])
        if known is None or run.get("rev", 0) >= known.get("rev", 0):
            self.runs[run["run_id"]] = run

    def fold(self, event: Json) -> Json:
        """Update the run with `event` and return it; an event that it already contains changes nothing."""
        run_id = event["run_id"]
        before = self.runs.get(run_id)
        run = (
            before
            if before is not None
            else {"run_id": run_id, **{key: event[key] for key in _SUBMITTED_FIELDS if key in event}}
        )
        if before is None or event.get("rev", 0) > before.get("rev", 0):
            fields = (*_END_FIELDS, *(_SET_FIELDS if event.get("kind") == "set" else ()))
            changed = {key: event[key] for key in fields if key in event}
            run = {**run, **changed}
            if event.get("state") == "EXEC" and not run.get("started_at"):
                run["started_at"] = event.get("at")
            self.runs[run_id] = run
        return run

    def advance(self, progress: Json) -> None:
        """Update the progress and metrics of a run from a run.progress notification."""
        run = self.runs.get(progress["run_id"])
        if run is not None:
            keys = ("progress", "metrics", "last_heartbeat_at")
            self.runs[run["run_id"]] = {**run, **{key: progress[key] for key in keys if key in progress}}

    def live(self) -> list[Json]:
        """Return the runs that have not ended, oldest first."""
        return sorted(
            (run for run in self.runs.values() if run.get("state") != "TERM"), key=lambda r: r["run_id"]
        )


def describe(event: Json) -> str:
    """Return an event as text: its kind, the cause of an end, its fields, and the user of a request."""
    words = [str(event.get("kind", "")).replace("_", " ")]
    if event.get("kind") == "dispatched" and (event.get("attempt") or 1) > 1:
        words.append(f"attempt {event['attempt']}")
    if event.get("outcome") and event.get("state") == "TERM":
        words.append(ending_text(event))
    elif isinstance(event.get("cause"), dict):
        words.append(ending_text({**event, "outcome": None}))
    words += [
        f"{key}={_value_text(event[key])}" for key in _PRINTED_FIELDS if event.get(key) not in (None, [], "")
    ]
    if event.get("kind") == "set":
        words += _set_changes(event) or ["(unknown change)"]
    if str(event.get("kind", "")).endswith(_REQUEST_ENDINGS) and event.get("who"):
        words.append(f"by {clean(event['who'])}")
    return clean("  ".join(word for word in words if word))


def _set_changes(event: Json) -> list[str]:
    """Return the changes of a `set` event; events of older ledgers do not have the old values."""
    if "was" in event:
        return changes(event["was"], event)
    return [f"{name} {_value_text(event[name])}" for name in _SET_FIELDS if name in event]


def _value_text(value: object) -> str:
    """Return a value as text; the items of a list are separated by commas."""
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)
