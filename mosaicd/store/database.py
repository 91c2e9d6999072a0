"""Opening the registry's file: pragmas, the check at start, migrations, readers.

The daemon has one writer connection, which also does every checkpoint: before SQLite 3.51.3, two connections
that checkpoint and commit at the same time can corrupt a WAL.  All other connections come from `open_reader`.

Note: never open the registry as a plain file while a connection is open, because closing that descriptor
drops SQLite's locks.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mosaicd import crash_points
from mosaicd.protocol.errors import Unavailable
from mosaicd.store.migrations import APPLICATION_ID, NewerRegistry, migrate

__all__ = ["DamagedRegistry", "NewerRegistry", "disk_trouble", "open_reader", "open_writer", "rows"]

Values = Sequence[Any] | Mapping[str, Any]

BUSY_TIMEOUT_MS = 5000
JOURNAL_LIMIT_BYTES = 64 << 20
AUTOCHECKPOINT_PAGES = 4000

#: Primary result codes for faults of the disk and for locks of other processes.
_DISK = {
    sqlite3.SQLITE_FULL: "is on a full disk",
    sqlite3.SQLITE_IOERR: "cannot be written (input/output error)",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_BUSY: "is locked by another process",
}


class DamagedRegistry(Exception):
    """Move it aside or restore a backup, and start again; live runs continue in their shims."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}. {self.__doc__}")
        self.why = why


def open_writer(path: Path) -> sqlite3.Connection:
    """Check and migrate the registry; return its writer connection.

    Raises DamagedRegistry, NewerRegistry or Unavailable.  Blocks during the check.  The connection may be
    passed to another thread once.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    )  # the WAL and SHM files get its mode
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            trouble = disk_trouble(error, path)
            raise trouble or DamagedRegistry(str(path), f"the registry is damaged ({error})") from error
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _check_pages(connection, path)
    _check_owner(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
    migrate(connection, str(path))


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file with damaged pages; a row that breaks a CHECK is accepted here and quarantined later."""
    connection.execute("PRAGMA ignore_check_constraints = ON")
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    connection.execute("PRAGMA ignore_check_constraints = OFF")
    if found != "ok":
        raise DamagedRegistry(str(path), f"the registry is damaged ({' '.join(found.split())})")


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse the database of another program, before any change to it."""
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not is_empty and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DamagedRegistry(str(path), "it is not a registry of mosaicd")


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a read-only connection; each statement sees everything that was committed before it."""
    uri = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")
    return connection


def disk_trouble(error: sqlite3.Error, path: Path) -> Unavailable | None:
    """Return the error for the caller if the disk or a lock is at fault; None if the statement is."""
    code = getattr(error, "sqlite_errorcode", None)
    words = _DISK.get(code & 0xFF) if code is not None else None
    if words is None:
        return None
    return Unavailable(f"the registry {path} {words}; try again", reason="registry_disk", detail=str(error))


def truncate_wal(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Move the WAL into the database and truncate it; return SQLite's (busy, log, checkpointed)."""
    # Without a timeout, a reader with an old snapshot does not delay writes.
    connection.execute("PRAGMA busy_timeout = 0")
    crash_points.reach("checkpoint.before")
    try:
        busy, log, checkpointed = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        crash_points.reach("checkpoint.after")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return int(busy), int(log), int(checkpointed)


def rows(connection: sqlite3.Connection, sql: str, values: Values = ()) -> list[dict[str, Any]]:
    """Return every row as a dictionary; text that is not UTF-8 is returned as bytes."""
    try:
        cursor = connection.execute(sql, values)
        found = cursor.fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        connection.text_factory = _text_or_bytes
        try:
            cursor = connection.execute(sql, values)
            found = cursor.fetchall()
        finally:
            connection.text_factory = str
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
