"""Inspect a registry for `doctor`, with or without a running daemon.

It only reads, over its own connection.  A fault of the registry is part of the result and never an exception.
"""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mosaicd.protocol import Json
from mosaicd.store import quarantine
from mosaicd.store.backup import find_damage, open_read_only
from mosaicd.store.migrations import APPLICATION_ID, VERSION
from mosaicd.store.statements import QUERIES

#: How many quarantined runs are listed one by one.
MOST_LISTED = 50


@dataclass(slots=True)
class RegistryInspection:
    """Contents and faults of a registry; the contents are reliable only if `faults` is empty.

    `states`: run id -> state word, of every run.
    """

    path: str
    faults: list[str] = field(default_factory=list)
    version: int | None = None
    bytes: int = 0
    wal_bytes: int = 0
    epoch: str | None = None
    last_seq: int = 0
    newest_at: float | None = None
    quarantine: list[Json] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    pruned_left: list[str] = field(default_factory=list)

    def to_dict(self) -> Json:
        """Return the wire form."""
        return {
            "path": self.path, "faults": self.faults, "version": self.version, "known_version": VERSION,
            "bytes": self.bytes, "wal_bytes": self.wal_bytes, "epoch": self.epoch, "last_seq": self.last_seq,
            "newest_at": self.newest_at, "runs": len(self.states), "quarantined": len(self.quarantine),
            "quarantine": self.quarantine[:MOST_LISTED], "pruned_left": self.pruned_left[:MOST_LISTED],
        }  # fmt: skip


def inspect(path: Path) -> RegistryInspection:
    """Return the contents and the faults of a registry; blocks while it reads the complete file."""
    found = RegistryInspection(str(path))
    try:
        found.bytes = path.stat().st_size
        found.wal_bytes = _size(f"{path}-wal")
        with closing(open_read_only(path)) as connection:
            _read(connection, found)
    except FileNotFoundError:
        found.faults.append("there is no registry yet")
    except (OSError, sqlite3.Error) as error:
        found.faults.append(str(error))
    return found


def _read(connection: sqlite3.Connection, found: RegistryInspection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        found.faults.append("it is not a registry of mosaicd")
        return
    found.version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    found.faults += find_damage(connection)
    if found.version > VERSION:
        found.faults.append(f"it has version {found.version}, this mosaicd reads up to {VERSION}")
        return
    epoch, last = (connection.execute(QUERIES[name]).fetchone() for name in ("epoch", "last_seq"))
    found.epoch, found.last_seq = str(epoch[0]) if epoch else None, int(last[0]) if last else 0
    newest = connection.execute(QUERIES["newest_at"]).fetchone()[0]
    found.newest_at = newest if isinstance(newest, float) else None
    found.quarantine = quarantine.entries(connection)
    for run_id, state, body in connection.execute(QUERIES["states"]):
        found.states[str(run_id)] = str(state)
        if state != "TERM":
            found.attempts[str(run_id)] = _attempt(body)
    if found.version >= 2:  # version 1 had no such table
        found.pruned_left = [str(run_id) for (run_id,) in connection.execute(QUERIES["pruned_left"])]


def _attempt(body: object) -> int:
    try:
        return int(json.loads(str(body)).get("attempt", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
