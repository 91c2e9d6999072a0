"""The quarantine: runs whose records are invalid, moved out of the way so that the daemon can start.

A run is quarantined if its row cannot be read, if its events cannot be replayed, or if its slots contradict
its row.  Row, events and slots are kept unchanged.  A row whose revision and state agree with the replay
stays: an older version may have folded other fields differently.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from mosaicd.core.fsm import IllegalTransition, Kind, replay
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.states import State
from mosaicd.store.database import rows
from mosaicd.store.rows import BadRow, read_event, read_run
from mosaicd.store.statements import QUERIES

#: A slot or number of CPUs of this size is damage: no machine has so many.
MOST_SLOTS = 4096


def quarantine_row(connection: sqlite3.Connection, n: int, why: str, at: float) -> None:
    """Move the run in row `n`, its events and slots into the quarantine tables; inside a transaction."""
    connection.execute(QUERIES["quarantine_run"], {"n": n, "why": why, "at": at})
    connection.execute(QUERIES["quarantine_events"], (n,))
    connection.execute(QUERIES["quarantine_drop_events"], (n,))
    connection.execute(QUERIES["quarantine_drop_slots"], (n,))
    connection.execute(QUERIES["quarantine_drop_pins"], (n,))
    connection.execute(QUERIES["quarantine_drop_run"], (n,))


def entries(connection: sqlite3.Connection) -> list[Json]:
    """Return the quarantined runs: run_id, owner, why, at, is_live, slots, cpus.

    `is_live`: the run had not ended, so its processes may be alive.  `slots` and `cpus`: all that its row,
    its slots or its newest dispatch name, because these may contradict each other.
    """
    return [_entry(connection, row) for row in rows(connection, QUERIES["quarantined"])]


def _entry(connection: sqlite3.Connection, row: Mapping[str, Any]) -> Json:
    is_live = row["state"] != State.TERM
    body = _object(row["body"])
    found = rows(connection, QUERIES["quarantined_dispatches"], (row["run_id"],)) if is_live else []
    granted = _object(found[0]["data"]) if found else {}
    said = [json.loads(str(row["slots"])), body.get("slots"), granted.get("slots")] if is_live else []
    slots = {slot for some in said if isinstance(some, list) for slot in some if _count(slot) == slot}
    cpus = [_count(data.get(name)) for data, name in ((body, "cpus_granted"), (granted, "cpus"))]
    return {
        "run_id": _as_text(row["run_id"]), "owner": _as_text(row["owner"]), "why": row["why"],
        "at": row["at"], "is_live": is_live, "slots": sorted(slots), "cpus": max(cpus) if is_live else 0,
    }  # fmt: skip


def checked_run(connection: sqlite3.Connection, row: Mapping[str, Any]) -> Run:
    """Return the live run of a row; raise BadRow if row, events and slots contradict each other."""
    run = read_run(row)
    if run.is_final:
        raise BadRow("the row is not in the state of a live run")
    events = [read_event(event) for event in rows(connection, QUERIES["events_of_run"], (run.run_id,))]
    if not events or events[0].kind is not Kind.SUBMITTED:
        raise BadRow("its events do not begin with `submitted`")
    try:
        replayed = replay(events)
    except (IllegalTransition, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRow(f"its events cannot be replayed: {type(error).__name__}: {error}") from error
    if (replayed.rev, replayed.state) != (run.rev, run.state):
        row_says = f"its row says revision {run.rev} in {run.state}"
        raise BadRow(f"{row_says}, its events give revision {replayed.rev} in {replayed.state}")
    held = [row["slot"] for row in rows(connection, QUERIES["slots_of"], (run.run_id,))]
    if held != sorted(run.slots):
        raise BadRow(f"its row says slots {sorted(run.slots)}, the table of slots says {held}")
    return run


def _object(text: object) -> Json:
    """Return the JSON object in a text that may be damaged; an empty object if there is none."""
    try:
        found = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int:
    """Return the value if it can be a number of CPUs or of a slot, else 0."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_SLOTS
    return value if is_one and isinstance(value, int) else 0


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
