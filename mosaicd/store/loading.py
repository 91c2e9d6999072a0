"""What is read when the registry opens: every live run, judged, with its last values.

Whatever makes no sense is set aside here, and what only run directories know is taken up, all in the same
transaction, before anybody decides by it.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaicd import crash_points, log
from mosaicd.core.replay_rundir import WHO
from mosaicd.log import Catalogue
from mosaicd.store import adopting, commit_mark, pruning, quarantine, rebuilding
from mosaicd.store.database import DamagedRegistry, disk_trouble, open_writer, rows
from mosaicd.store.live_runs import StoredRun
from mosaicd.store.rows import BadRow, read_progress
from mosaicd.store.statements import QUERIES


@dataclass(slots=True)
class Loaded:
    """An open registry and what stood in it."""

    connection: sqlite3.Connection
    epoch: str
    last_seq: int
    runs: list[StoredRun]
    quarantine: list[dict[str, Any]]
    retained: pruning.Retained
    damage: dict[str, Any] | None = None
    adopted: dict[str, Any] | None = None
    is_news: bool = False
    recollected: frozenset[str] = frozenset()


def load(path: Path, at: float, look: adopting.Look | None = None) -> Loaded:
    """Open the file at `path` and read every live run; raises what open_writer raises.

    `at` is the time (Unix seconds) that quarantined rows are marked with.  `look` reads the run directories.
    """
    mark = commit_mark.read(path)
    connection = open_writer(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        runs = _live_runs(connection, at)
        adopted = None
        if look is not None:
            adopted = _adopt(connection, runs, mark, look, at)
        if adopted is not None:
            runs = _live_runs(connection, at)
            crash_points.reach("adopt.before_commit")
        epoch = _epoch(connection)
        connection.execute("COMMIT")
        if adopted is not None:
            crash_points.reach("adopt.after_commit")
        last = connection.execute(QUERIES["last_seq"]).fetchone()
        return Loaded(
            connection, epoch, last[0] if last else 0, runs, quarantine.listed(connection),
            retained=pruning.read_retained(connection), damage=rebuilding.damage(connection),
            adopted=adopting.told(connection, at), is_news=adopted is not None,
            recollected=frozenset(found for (found,) in connection.execute(QUERIES["recollected"], (WHO,))),
        )  # fmt: skip
    except sqlite3.DatabaseError as error:  # what the look at the pages did not find
        connection.close()
        trouble = disk_trouble(error, path)
        raise trouble or DamagedRegistry(str(path), f"the registry is damaged ({error})") from error
    except BaseException:
        connection.close()
        raise


def _adopt(
    connection: sqlite3.Connection, runs: Sequence[StoredRun], mark: tuple[str, int] | None,
    look: adopting.Look, at: float,
) -> adopting.Adopted | None:  # fmt: skip
    """Take up what only run directories know."""
    found = connection.execute(QUERIES["epoch"]).fetchone()
    cause = adopting.behind(connection, mark, str(found[0]) if found else None)
    adopted = adopting.adopt(connection, [one.run for one in runs], cause, look, at)
    if adopted is None:
        return None
    for run_id, why in adopted.withheld.items():
        log.event(Catalogue.RUN_NOT_RECOVERED, run_id=run_id, why=why)
    for run_id, why in adopted.not_taken_up.items():
        log.event(Catalogue.DIRECTORY_NOT_RECOVERED, directory=run_id, why=why)
    return adopted


def _live_runs(connection: sqlite3.Connection, at: float) -> list[StoredRun]:
    runs: list[StoredRun] = []
    for row in rows(connection, QUERIES["live_runs"]):
        try:
            run = quarantine.judged(connection, row)
            runs.append(StoredRun(run, read_progress(row), int(row["n"])))
        except BadRow as error:
            log.event(Catalogue.ROW_QUARANTINED, run_id=row["run_id"], why=error)
            quarantine.set_aside(connection, int(row["n"]), str(error), at)
    return runs


def _epoch(connection: sqlite3.Connection) -> str:
    """Return the name of this ledger, giving a new one its own."""
    found = connection.execute(QUERIES["epoch"]).fetchone()
    if found is not None:
        return str(found[0])
    epoch = secrets.token_hex(8)
    connection.execute(QUERIES["set_epoch"], (epoch,))
    return epoch
