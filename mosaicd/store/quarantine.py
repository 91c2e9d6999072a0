"""What makes no sense is moved aside, whole, and said so; it never keeps the daemon down.

A run is set aside when its row cannot be read, its events cannot be replayed, or its slots contradict it.
A row that merely differs from its replay is kept: an older version may have folded differently.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from mosaicd.core.fsm import IllegalTransition, Kind, replay
from mosaicd.core.run import Run
from mosaicd.store.database import rows
from mosaicd.store.rows import BadRow, read_event, read_run
from mosaicd.store.statements import QUERIES


def set_aside(connection: sqlite3.Connection, n: int, why: str, at: float) -> None:
    """Move the run in row `n`, its events and slots into the quarantine tables; inside a transaction."""
    connection.execute(QUERIES["quarantine_run"], {"n": n, "why": why, "at": at})
    connection.execute(QUERIES["quarantine_events"], (n,))
    connection.execute(QUERIES["quarantine_drop_events"], (n,))
    connection.execute(QUERIES["quarantine_drop_slots"], (n,))
    connection.execute(QUERIES["quarantine_drop_pins"], (n,))
    connection.execute(QUERIES["quarantine_drop_run"], (n,))


def listed(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return what was set aside: run_id, why, at, and slots (nobody knows whether they are free)."""
    return [
        {
            "run_id": _shown(row["run_id"]),
            "why": row["why"],
            "at": row["at"],
            "slots": json.loads(str(row["slots"])),
        }
        for row in rows(connection, QUERIES["quarantined"])
    ]


def judged(connection: sqlite3.Connection, row: Mapping[str, Any]) -> Run:
    """Return the live run of a row when row, events and slots can be true together; BadRow says why not."""
    run = read_run(row)
    if run.is_final:
        raise BadRow("the row is in no state of a live run")
    events = [read_event(event) for event in rows(connection, QUERIES["events_of_run"], (run.run_id,))]
    if not events or events[0].kind is not Kind.SUBMITTED:
        raise BadRow("its events do not begin with `submitted`")
    try:
        replayed = replay(events)
    except (IllegalTransition, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRow(f"its events cannot be replayed: {type(error).__name__}: {error}") from error
    if (replayed.rev, replayed.state) != (run.rev, run.state):
        stands = f"its row says revision {run.rev} in {run.state}"
        raise BadRow(f"{stands}, its events lead to {replayed.rev} in {replayed.state}")
    held = [row["slot"] for row in rows(connection, QUERIES["slots_of"], (run.run_id,))]
    if held != sorted(run.slots):
        raise BadRow(f"its row says slots {sorted(run.slots)}, the slots say {held}")
    return run


def _shown(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
