"""Copy the registry while it is in use, through SQLite's online backup, and check copies.

The source connection holds one read transaction until the copy is complete.  So the copy shows one moment, a
write never restarts it, and in WAL mode no writer waits for it.  The WAL cannot be truncated until then.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mosaicd.protocol.errors import Conflict, Unavailable
from mosaicd.safe_files import sync_to_disk
from mosaicd.store.database import disk_trouble, open_reader
from mosaicd.store.migrations import APPLICATION_ID, VERSION
from mosaicd.store.statements import QUERIES

#: Each step copies 1 MiB, then pauses so that other processes can use the disk.
PAGES_A_STEP = 256
PAUSE_S = 0.002


class InvalidCopy(Exception):
    """The file cannot be restored; the message says why."""


class Cancelled(Exception):
    """The client that asked for the copy has disconnected."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The contents of a copy."""

    path: str
    bytes: int
    runs: int
    last_seq: int
    epoch: str
    version: int


def write_copy(
    source: Path, target: Path, *, replace: bool = False, is_cancelled: Callable[[], bool] = lambda: False
) -> Copy:
    """Write a checked, durable copy of the registry to `target` (mode 0600); atomic.

    Raises Conflict if `target` exists (with `replace`: if it is not a regular file), Unavailable if the disk
    is at fault.
    """
    _refuse_target(target, replace)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy_pages(source, partial, is_cancelled)
        made = check_copy(partial)
        sync_to_disk(partial)
        if replace:
            os.rename(partial, target)
        else:
            _link(partial, target)
        sync_to_disk(target.parent)
    except OSError as error:
        why = f"the copy {target} cannot be written: {error.strerror}"
        raise Unavailable(why, path=str(target)) from error
    except InvalidCopy as error:
        raise Conflict(f"the registry itself cannot be copied: {error}") from error
    except sqlite3.Error as error:
        raise disk_trouble(error, target) or error from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return Copy(str(target), made.bytes, made.runs, made.last_seq, made.epoch, made.version)


def copy_pages(
    source: Path,
    target: Path,
    is_cancelled: Callable[[], bool] = lambda: False,
    reader: Callable[[Path], sqlite3.Connection] = open_reader,
) -> None:
    """Copy the registry at `source` with its WAL into the file `target`, which has no WAL."""

    def step(status: int, left: int, total: int) -> None:
        if is_cancelled():
            raise Cancelled

    with closing(reader(source)) as origin, closing(sqlite3.connect(target)) as writer:
        writer.execute("PRAGMA synchronous = OFF")  # the caller syncs the complete file once
        origin.execute("BEGIN")
        origin.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # this read fixes the snapshot
        origin.backup(writer, pages=PAGES_A_STEP, progress=step, sleep=PAUSE_S)
        origin.execute("ROLLBACK")
        writer.execute("PRAGMA journal_mode = DELETE")


def check_copy(path: Path) -> Copy:
    """Return the contents of a copy, without changing it; raise InvalidCopy if it cannot be restored."""
    try:
        with closing(open_read_only(path)) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise InvalidCopy(f"{path} is not a registry of mosaicd")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > VERSION:
                raise InvalidCopy(
                    f"{path} has version {version}, this mosaicd reads up to {VERSION}; use a newer mosaicd"
                )
            faults = find_damage(connection)
            if faults:
                raise InvalidCopy(f"{path} is damaged: {faults[0]}")
            epoch = connection.execute(QUERIES["epoch"]).fetchone()
            last = connection.execute(QUERIES["last_seq"]).fetchone()
            runs = connection.execute(QUERIES["count_all"]).fetchone()[0]
            name, seq = str(epoch[0]) if epoch else "", int(last[0]) if last else 0
            return Copy(str(path), path.stat().st_size, runs, seq, name, version)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidCopy(f"{path} cannot be read: {why}") from error


def open_read_only(path: Path) -> sqlite3.Connection:
    """Return a read-only connection that makes no files; a file without a WAL is opened as immutable."""
    os.stat(path)  # raises FileNotFoundError, which SQLite would not
    has_wal = os.path.exists(f"{path}-wal")
    uri = f"file:{quote(str(path))}?mode=ro" + ("" if has_wal else "&immutable=1")
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def find_damage(connection: sqlite3.Connection, most: int = 20) -> list[str]:
    """Return the faults that SQLite finds in pages, indexes and references; reads the complete file."""
    found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({most})")]
    faults = [" ".join(fault.split()) for fault in found if fault != "ok"]
    strays = connection.execute("PRAGMA foreign_key_check").fetchmany(most)
    return faults + [f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}" for row in strays]


def _refuse_target(target: Path, replace: bool) -> None:
    if not target.parent.is_dir():
        raise Conflict(f"the directory {target.parent} does not exist", path=str(target))
    if not os.path.lexists(target):
        return
    if not replace:
        raise _taken(target)
    if not target.is_file() or target.is_symlink():
        raise Conflict(f"{target} is not a regular file and is not replaced", path=str(target))


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} exists already; choose another name, or use --force", path=str(target))


def _link(partial: Path, target: Path) -> None:
    """Give the copy its name; raise Conflict if another process has made a file of that name meanwhile."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise
        os.rename(partial, target)
