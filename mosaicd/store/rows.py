"""Convert runs and events to rows and back.

A field with an index or a constraint is a column; the other fields of a run are JSON in `body`.  Rows are not
trusted: a run or an event that cannot be read raises BadRow.  Progress that cannot be read becomes empty.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Progress, Run
from mosaicd.protocol import Json

#: Fields of a run that are columns of the same name.
_COLUMNS = (
    "run_id", "name", "owner_uid", "owner", "state", "released", "want", "outcome", "rev", "digest", "key",
    "priority", "created_at", "finished_at",
)  # fmt: skip
_BODY = tuple(f.name for f in fields(Run) if f.name not in _COLUMNS)
#: Fields whose default is None: a None is left out of the body.
_ABSENT = {f.name for f in fields(Run) if f.default is None}
_column_values = attrgetter(*_COLUMNS)
_body_values = attrgetter(*_BODY)
_progress_names = tuple(f.name for f in fields(Progress))
_progress_values = attrgetter(*_progress_names)


class BadRow(ValueError):
    """The row cannot be read."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the ledger, with state, want and outcome of the run after it."""

    seq: int
    run_id: str
    attempt: int
    rev: int
    kind: str
    at: float
    who: str
    data: Mapping[str, Any]
    state: str
    want: str
    outcome: str | None


#: Strict and without spaces; `default` converts Mappings that are not a dict.
_encode = json.JSONEncoder(separators=(",", ":"), default=dict, allow_nan=False).encode


def run_values(run: Run) -> dict[str, Any]:
    """Return the parameters of insert_run and update_run.

    Raises ValueError for a value that JSON cannot hold.
    """
    values: dict[str, Any] = dict(zip(_COLUMNS, _column_values(run), strict=True))
    cause = run.cause
    values["released"] = int(run.released)
    values["cause_kind"] = str(cause["kind"]) if cause and "kind" in cause else None
    body = zip(_BODY, _body_values(run), strict=True)
    values["body"] = _encode(
        {name: value for name, value in body if value is not None or name not in _ABSENT}
    )
    return values


def event_values(after: Run, event: Event) -> tuple[Any, ...]:
    """Return the parameters of insert_event for an event that led to `after`."""
    data = _encode(event.data) if event.data else "{}"
    return (
        after.run_id, after.attempt, after.rev, event.kind, event.at, event.who, data,
        after.state, after.want, after.outcome,
    )  # fmt: skip


def progress_text(progress: Progress) -> str:
    """Return the progress column; infinity and NaN are written as text."""
    values: dict[str, Any] = dict(zip(_progress_names, _progress_values(progress), strict=True))
    try:
        return _encode(values)
    except ValueError:
        values["metrics"] = {name: _finite_or_text(value) for name, value in progress.metrics.items()}
        return _encode({name: _finite_or_text(value) for name, value in values.items()})


def read_run(row: Mapping[str, Any]) -> Run:
    """Return the run of a row; raise BadRow if the row is invalid."""
    try:
        values = json.loads(_text(row["body"]))
        values.update({name: row[name] for name in _COLUMNS})
        values["released"] = bool(row["released"])
        for name in ("run_id", "name", "owner", "digest"):
            _text(values[name])
        return Run.from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadRow(f"the row cannot be read: {type(error).__name__}: {error}") from error


def read_progress(row: Mapping[str, Any]) -> Progress:
    """Return the progress of a row; an empty one if it cannot be read, so that the run is kept."""
    try:
        return Progress.load(json.loads(_text(row["progress"])))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return Progress()


def read_event(row: Mapping[str, Any]) -> Event:
    """Return the event of a ledger row, for a replay; raise BadRow if the row is invalid."""
    try:
        return Event(Kind(row["kind"]), float(row["at"]), _text(row["who"]), _object(row["data"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"event {row.get('seq')} cannot be read: {type(error).__name__}: {error}") from error


def read_stored_event(row: Mapping[str, Any]) -> StoredEvent:
    """Return a ledger row for a watcher; data that cannot be read are replaced by a note."""
    try:
        data = _object(row["data"])
    except (TypeError, ValueError, RecursionError) as error:
        data = {"unreadable": f"{type(error).__name__}: {error}"}
    return StoredEvent(**{**row, "data": data})


def _finite_or_text(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _object(text: object) -> Json:
    value = json.loads(_text(text))
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is not text")
    return value
