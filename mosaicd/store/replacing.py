"""Replace the registry by a restored copy, or by an empty one if the registry is lost.

The new file is written completely beside the registry, then renamed to RESTORED: this rename decides.
`finish` moves the present registry and its write-ahead log into a directory below ASIDE and renames RESTORED
to the name of the registry.  No file is overwritten.

Note: `finish` runs at every start of the daemon, under the lock of the state directory, so a replacement that
was interrupted at any point has either changed nothing or is finished by the next start.  Note: the table
`meta` of the new registry records that it lacks commits (`loss`), so the next opening recovers runs from the
run directories.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mosaicd import crash_points
from mosaicd.core.fsm import Event, apply
from mosaicd.core.run import Run
from mosaicd.safe_files import sync_to_disk
from mosaicd.store import commit_mark, quarantine
from mosaicd.store.backup import check_copy, copy_pages, open_read_only
from mosaicd.store.database import open_writer, rows
from mosaicd.store.event_writes import change_of, write_change
from mosaicd.store.loss import Loss, write_loss
from mosaicd.store.rows import BadRow
from mosaicd.store.statements import QUERIES

RESTORED = ".restored"
ASIDE = "set-aside"
_PARTS = ("", "-wal", "-shm", commit_mark.SUFFIX)

Decide = Callable[[Run], Sequence[Event]]


@dataclass(slots=True)
class StagedCopy:
    """A copy that is ready to replace the registry; `epoch` is new.

    The ids of the runs that were live in the copy: `changed` (by the kind of the last new event), `unchanged`
    and `quarantined`.
    """

    epoch: str
    last_seq: int = 0
    runs: int = 0
    version: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


def is_blank(path: Path) -> bool:
    """Return whether the registry does not exist or is an empty database, without changing it."""
    try:
        with closing(open_read_only(path)) as connection:
            found: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return found == 0
    except FileNotFoundError:
        return True
    except sqlite3.Error:
        return False


def is_damaged_registry(path: Path) -> bool:
    """Return whether a file that cannot be used is a damaged registry and not another program's database."""
    try:
        with closing(open_read_only(path)) as connection:
            names = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    except (OSError, sqlite3.Error):
        return True  # no program can read it, and it has the name of a registry
    return not names or {"meta", "runs", "events"} <= names


def run_ids(copy: Path) -> frozenset[str]:
    """Return the ids of all runs in a copy; raise InvalidCopy if it cannot be restored."""
    check_copy(copy)
    with closing(open_read_only(copy)) as connection:
        return frozenset(str(run_id) for run_id, *_ in connection.execute(QUERIES["states"]))


def stage_copy(copy: Path, registry: Path, decide: Decide, at: float) -> StagedCopy:
    """Make RESTORED beside `registry` from a copy, with the events that `decide` returns for its live runs.

    Raises InvalidCopy, DamagedRegistry or NewerRegistry, and changes nothing then.
    """
    check_copy(copy)
    staged = StagedCopy(secrets.token_hex(8))
    with _staging(registry) as partial:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy_pages(copy, partial, reader=open_read_only)
        with _one_transaction(partial) as connection:  # also migrates it
            connection.execute(QUERIES["change_epoch"], (staged.epoch,))
            write_loss(connection, Loss("an older copy was restored", is_restored_copy=True))
            _decide_live_runs(connection, decide, at, staged)
    return staged


def replace_with_empty(registry: Path, why: str, at: float) -> None:
    """Set the registry aside and put an empty one in its place, which records `why` the old one is lost."""
    at = round(at, 3)  # `finish` reads it from the file and names the directory by it
    with _staging(registry) as partial:
        with _one_transaction(partial) as connection:
            connection.execute(QUERIES["change_epoch"], (secrets.token_hex(8),))
            write_loss(connection, Loss(why, set_aside=str(_aside_of(registry, at))))
        os.utime(partial, (at, at))
    finish(registry)


def finish(registry: Path) -> Path | None:
    """Put RESTORED, if it exists, in the place of the registry; return the directory of the old registry.

    The caller holds the lock of the state directory.  Idempotent, also after a crash in its middle.
    """
    restored = Path(f"{registry}{RESTORED}")
    try:
        decided_at = restored.stat().st_mtime
    except FileNotFoundError:
        return None
    aside = _aside_of(registry, decided_at)
    crash_points.reach("replace.decided")
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in _PARTS:
        with suppress(FileNotFoundError):
            os.rename(f"{registry}{part}", aside / f"{registry.name}{part}")
    sync_to_disk(aside)
    crash_points.reach("replace.set_aside")
    os.rename(restored, registry)
    sync_to_disk(registry.parent)
    return aside


def _aside_of(registry: Path, decided_at: float) -> Path:
    """Return the directory for a registry whose replacement was decided at that time."""
    return registry.parent / ASIDE / f"{datetime.fromtimestamp(decided_at, UTC):%Y%m%dT%H%M%S.%fZ}"


@contextmanager
def _staging(registry: Path) -> Iterator[Path]:
    """Yield the path of a file to write; it becomes RESTORED, durably, or is removed after an error."""
    partial = Path(f"{registry}{RESTORED}.part")
    _unlink(partial)
    try:
        yield partial
        sync_to_disk(partial)
        crash_points.reach("replace.staged")
        os.rename(partial, f"{registry}{RESTORED}")
        sync_to_disk(registry.parent)
    finally:
        _unlink(partial)


@contextmanager
def _one_transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a registry for one transaction, then leave it as one file without a write-ahead log."""
    with closing(open_writer(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")


def _decide_live_runs(connection: sqlite3.Connection, decide: Decide, at: float, staged: StagedCopy) -> None:
    for row in rows(connection, QUERIES["live_runs"]):
        try:
            run = quarantine.checked_run(connection, row)
        except BadRow as error:
            quarantine.quarantine_row(connection, int(row["n"]), str(error), at)
            staged.quarantined.append(str(row["run_id"]))
            continue
        steps: list[tuple[Run, Event]] = []
        for event in decide(run):
            steps.append((apply(steps[-1][0] if steps else run, event), event))
        if steps:
            write_change(connection, change_of(run, steps))
            staged.changed.setdefault(str(steps[-1][1].kind), []).append(run.run_id)
        else:
            staged.unchanged.append(run.run_id)
    last = connection.execute(QUERIES["last_seq"]).fetchone()
    staged.last_seq = last[0] if last else 0
    staged.runs = connection.execute(QUERIES["count_all"]).fetchone()[0]
    staged.version = connection.execute("PRAGMA user_version").fetchone()[0]


def _unlink(path: Path) -> None:
    for part in (*_PARTS, "-journal"):
        Path(f"{path}{part}").unlink(missing_ok=True)
