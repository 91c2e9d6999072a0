"""What a watcher knows of runs: snapshots, folded with the events and progress that came after them."""

from mosaicctl.changes import changes
from mosaicctl.render import clean, ending_words
from mosaicd.protocol import Json

#: Fields of an event that are the run's own after it.
_STANDING = ("state", "want", "outcome", "rev", "attempt")
#: Fields of a `submitted` event that are the run's own.
_BORN = ("name", "owner", "kind", "worker_kind", "priority", "held")
#: Fields of a `set` event that are the run's own after it.
_SET = ("name", "priority", "labels")
#: Fields of an event worth printing, in this order, beside its kind.
_TELLING = ("slots", "cpus", "exit_code", "signal", "mode", "reason", "limit", "not_before", "error")


#: Endings of the kinds of events that a user requested.
_ASKED = ("_requested", "hold", "release", "set")


class Board:
    """Runs by id, and the state in which each was last shown."""

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}

    def put(self, run: Json) -> None:
        """Take a whole run object, unless an event has already told later news."""
        known = self.runs.get(run["run_id"])
        if known is None or run.get("rev", 0) >= known.get("rev", 0):
            self.runs[run["run_id"]] = run

    def fold(self, event: Json) -> Json:
        """Return the run after `event`.

        An event that a snapshot already contains changes nothing.
        """
        run_id = event["run_id"]
        before = self.runs.get(run_id)
        run = (
            before
            if before is not None
            else {"run_id": run_id, **{key: event[key] for key in _BORN if key in event}}
        )
        if before is None or event.get("rev", 0) > before.get("rev", 0):
            may_tell = (*_STANDING, "cause", *(_SET if event.get("kind") == "set" else ()))
            news = {key: event[key] for key in may_tell if key in event}
            run = {**run, **news}
            if event.get("state") == "EXEC" and not run.get("started_at"):
                run["started_at"] = event.get("at")
            self.runs[run_id] = run
        return run

    def advance(self, progress: Json) -> None:
        """Take a run.progress notification."""
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
    """Return an event in words: what happened, who asked for it, and its evidence."""
    words = [str(event.get("kind", "")).replace("_", " ")]
    if event.get("kind") == "dispatched" and (event.get("attempt") or 1) > 1:
        words.append(f"attempt {event['attempt']}")
    if event.get("outcome") and event.get("state") == "TERM":
        words.append(ending_words(event))
    elif isinstance(event.get("cause"), dict):
        words.append(ending_words({"outcome": None, "cause": event["cause"]}))
    words += [f"{key}={_value(event[key])}" for key in _TELLING if event.get(key) not in (None, [], "")]
    if event.get("kind") == "set":
        words += _set(event) or ["(unknown change)"]
    if str(event.get("kind", "")).endswith(_ASKED) and event.get("who"):
        words.append(f"by {clean(event['who'])}")
    return clean("  ".join(word for word in words if word))


def _set(event: Json) -> list[str]:
    """Return what was set; an older ledger does not say what was there before."""
    if "was" in event:
        return changes(event["was"], event)
    return [f"{name} {_value(event[name])}" for name in _SET if name in event]


def _value(value: object) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)
