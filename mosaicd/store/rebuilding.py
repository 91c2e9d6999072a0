"""A registry that cannot be used is set aside whole, and another takes its place: written first, then named.

The new file becomes RESTORED when it is complete and durable; `restoring.finish` does the rest, however
often it is interrupted, and overwrites nothing.  What happened is kept in the new file's `meta` (`damage`),
so that whoever asks is told for as long as the old one lies there.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mosaicd import crash_points
from mosaicd.core.replay_rundir import WHO
from mosaicd.core.run import Progress
from mosaicd.safe_files import sync_to_disk
from mosaicd.store import pruning, quarantine
from mosaicd.store.backup import open_quietly
from mosaicd.store.database import open_writer, rows
from mosaicd.store.event_writes import Steps, insert_run, insert_without_slots
from mosaicd.store.restoring import RESTORED, aside_of, finish
from mosaicd.store.statements import QUERIES

_PARTS = ("", "-wal", "-shm", "-journal")
#: Directories that are named one by one where they could not be made runs again.
MOST_NAMED = 50

#: What a run that cannot be stored fails of, by itself.
UNFIT = (
    ValueError, TypeError, OverflowError, sqlite3.IntegrityError, sqlite3.ProgrammingError,
    sqlite3.InterfaceError, sqlite3.DataError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recollected:
    """A run made from its directory.  `is_held`: a shim of it lives; `is_pruned`: it was to be removed."""

    steps: Steps
    progress: Progress
    is_held: bool = False
    is_pruned: bool = False


@dataclass(slots=True)
class Rebuilt:
    """What became of it; `not_rebuilt` is directory -> why."""

    why: str
    at: float
    set_aside: str
    epoch: str
    ended: int = 0
    live: int = 0
    waiting: int = 0
    not_rebuilt: dict[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return it as it is kept and sent."""
        return {
            "why": self.why, "at": self.at, "set_aside": self.set_aside, "epoch": self.epoch,
            "ended": self.ended, "live": self.live, "waiting": self.waiting,
            "not_rebuilt": dict(list(self.not_rebuilt.items())[:MOST_NAMED]),
            "not_rebuilt_count": len(self.not_rebuilt),
        }  # fmt: skip


def is_blank(path: Path) -> bool:
    """Whether there is no registry here, or one that nothing was ever written to.  Changes nothing."""
    try:
        with closing(open_quietly(path)) as connection:
            found: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return found == 0
    except FileNotFoundError:
        return True
    except sqlite3.Error:
        return False


def is_ours(path: Path) -> bool:
    """Whether a file that is no registry of today is a broken one of ours, not another program's database."""
    try:
        with closing(open_quietly(path)) as connection:
            names = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    except (OSError, sqlite3.Error):
        return True  # nobody's database: it lies under our name and holds nothing that anybody could read
    return not names or {"meta", "runs", "events"} <= names


def rebuild(
    registry: Path, runs: Iterable[Recollected], not_rebuilt: Mapping[str, str], why: str, at: float
) -> Rebuilt:
    """Put a new registry with these runs in the place of the one at `registry`, which is set aside."""
    at = round(at, 3)  # the aside is named by it, through a file's time
    made = Rebuilt(why, at, str(aside_of(registry, at)), secrets.token_hex(8), not_rebuilt=dict(not_rebuilt))
    partial = Path(f"{registry}{RESTORED}.part")
    _unlink(partial)
    try:
        with closing(open_writer(partial)) as connection:
            _write(connection, runs, made)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode = DELETE")
        os.utime(partial, (at, at))
        sync_to_disk(partial)
        crash_points.reach("rebuild.written")
        os.rename(partial, f"{registry}{RESTORED}")
        sync_to_disk(registry.parent)
    finally:
        _unlink(partial)
    finish(registry)
    return made


def damage(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Return what was told of the last damage, while the file that was set aside lies where it was put."""
    found = connection.execute(QUERIES["damage"]).fetchone()
    try:
        told = json.loads(found[0]) if found else None
    except ValueError:
        return None
    is_told = isinstance(told, dict) and os.path.exists(str(told.get("set_aside")))
    return told if is_told else None


def sentence(told: Mapping[str, Any]) -> str:
    """Return one line for whoever looks after the machine."""
    counts = f"{told['ended']} ended, {told['live']} live and {told['waiting']} waiting runs"
    lost = told["not_rebuilt_count"]
    return (
        f"{told['why']}; it lies in {told['set_aside']} and was rebuilt from the run directories: {counts}"
        + (f"; {lost} directories told nothing" if lost else "")
        + "; what is only in the old one (changes after the submit, pins, ids of pruned runs) is lost. "
        "Move that directory away when you need it no more"
    )


def _write(connection: sqlite3.Connection, runs: Iterable[Recollected], made: Rebuilt) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(QUERIES["change_epoch"], (made.epoch,))
    runs = list(runs)
    claims = claimed(runs)
    for one in runs:
        run = one.steps[-1][0]
        try:
            why = take_in(connection, one, claims, made.at)
        except UNFIT as error:
            made.not_rebuilt[run.run_id] = str(error)
            continue
        if why is not None:
            made.not_rebuilt[run.run_id] = why
        elif not one.is_pruned:
            made.ended += run.is_final
            made.waiting += run.is_waiting
            made.live += run.is_holding
    connection.execute(QUERIES["set_damage"], (json.dumps(made.told()),))
    connection.execute("COMMIT")


def claimed(runs: Iterable[Recollected]) -> dict[int, str]:
    """Return whose each slot is where two claim it: who works comes first, then who was submitted first."""
    claims: dict[int, str] = {}
    for one in sorted(runs, key=lambda one: not one.is_held):
        run = one.steps[-1][0]
        for slot in run.slots:
            claims.setdefault(slot, run.run_id)
    return claims


def take_in(
    connection: sqlite3.Connection, one: Recollected, claims: Mapping[int, str], at: float
) -> str | None:
    """Write a run that no row knows; one of UNFIT, and nothing of it is written.

    A run that uses what another holds, or whose key is another's by now, is written and set aside, so that
    nobody is given what it uses: returned is why.  One that was being pruned is pruned.
    """
    run = one.steps[-1][0]
    connection.execute("SAVEPOINT run")
    try:
        if run.key is not None:
            key = (run.owner_uid, run.key)
            for other in rows(connection, QUERIES["run_with_key"], key):
                why = f"run {other['run_id']} has the same key"
                _set_aside(connection, one, why, at)
                return why
        others = {name for slot in run.slots for (name,) in connection.execute(QUERIES["holder"], (slot,))}
        others |= {claims.get(slot, run.run_id) for slot in run.slots} - {run.run_id}
        if others:
            why = f"run {min(others)} holds the same slots"
            _set_aside(connection, one, why, at)
            return why
        insert_run(connection, one.steps, one.progress)
        if one.is_pruned:
            pruning.prune({run.run_id: 0}, WHO, at, connection)
    except UNFIT:
        connection.execute("ROLLBACK TO run")
        raise
    finally:
        connection.execute("RELEASE run")
    return None


def _set_aside(connection: sqlite3.Connection, one: Recollected, why: str, at: float) -> None:
    """Write a run into quarantine; what it claims stands in its row and its events, and in no slot."""
    run = replace(one.steps[-1][0], key=None)  # the key may be another's, too
    steps = [*one.steps[:-1], (run, one.steps[-1][1])]
    inserted = insert_without_slots(connection, steps, one.progress)
    quarantine.set_aside(connection, inserted.number, why, at)


def _unlink(path: Path) -> None:
    for part in _PARTS:
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{part}")
