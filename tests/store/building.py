"""Runs, events and raw connections for the tests of the registry."""

import sqlite3
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol import ulid
from mosaicd.protocol.states import RunKind
from mosaicd.store.rows import read_event
from mosaicd.store.statements import QUERIES

AT = 1_800_000_000.0
_numbers = count(1)

EXIT_0 = {"exit_code": 0, "finished_at": AT + 9, "swept": True}


def new_run(**fields: Any) -> Run:
    """Return a new run in INIT with its own id, name and digest, unless given."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "run_id": ulid.encode(int(AT * 1000) + number, number.to_bytes(10, "big")),
        "owner_uid": 1000, "owner": "ada", "kind": RunKind.COMMAND, "name": f"run-{number}",
        "command": ("true",), "digest": f"sha256:{number:064x}", "created_at": AT + number,
    }  # fmt: skip
    return Run(**{**values, **fields})


def submission(run: Run) -> Event:
    """Return the event `submitted` of `run`."""
    return Event(Kind.SUBMITTED, run.created_at, run.owner, {"run": run.to_dict()})


def dispatched(*slots: int, attempt: int = 1) -> Event:
    data = {"attempt": attempt, "nonce": f"{attempt:032x}", "slots": list(slots), "cpus": 1}
    return Event(Kind.DISPATCHED, AT + 1, data=data)


def registered() -> Event:
    return Event(Kind.REGISTERED, AT + 2, "shim", {"shim_pid": 4711, "shim_start_ticks": 99})


def spawned() -> Event:
    data = {"pid": 4712, "start_ticks": 100, "boot_id": "boot-1", "containment": "process-group"}
    return Event(Kind.SPAWNED, AT + 3, "shim", data)


def event(kind: Kind, /, **data: Any) -> Event:
    return Event(kind, AT + 5, "ada", data)


def to_exec(*slots: int, attempt: int = 1) -> Sequence[Event]:
    """Return the events that bring a waiting run to EXEC."""
    return (dispatched(*slots, attempt=attempt), registered(), spawned(), event(Kind.STARTED))


def to_term() -> Sequence[Event]:
    """Return the events that end a run in EXEC with success."""
    return (event(Kind.EXITED, **EXIT_0), event(Kind.FINISHED, outcome="succeeded", cause=None))


def raw(path: Path) -> sqlite3.Connection:
    """Return a connection that bypasses the registry, with the constraints of the daemon."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def ledger(path: Path, run_id: str) -> list[Event]:
    """Return the events of a run in a file."""
    connection = raw(path)
    connection.row_factory = sqlite3.Row
    try:
        return [read_event(dict(row)) for row in connection.execute(QUERIES["events_of_run"], (run_id,))]
    finally:
        connection.close()


def row(path: Path, run_id: str) -> dict[str, Any]:
    """Return the row of a run in a file."""
    connection = raw(path)
    connection.row_factory = sqlite3.Row
    try:
        return dict(connection.execute(QUERIES["get_run"], (run_id,)).fetchone())
    finally:
        connection.close()
