"""Opening and reading the registry: every live run, judged, with its last values.

A row that contradicts itself is quarantined here, and what only run directories hold is recovered, all in one
transaction, before any decision is made by a row.
"""

import secrets
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaicd import crash_points, log
from mosaicd.core.replay_rundir import WHO
from mosaicd.log import Catalogue
from mosaicd.store import commit_mark, pruning, quarantine
from mosaicd.store.database import DamagedRegistry, disk_trouble, open_writer, rows
from mosaicd.store.live_runs import StoredRun
from mosaicd.store.loss import find_loss
from mosaicd.store.recovering import FindMissing, recover
from mosaicd.store.recovery_report import RecoveryReport, read_reports
from mosaicd.store.rows import BadRow, read_progress
from mosaicd.store.statements import QUERIES


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recoveries of this registry.

    `new` was made by this opening; `reports` are still to be shown, `new` included.  `unconfirmed` are live
    runs that were recovered and of which nothing has been recorded since.
    """

    new: RecoveryReport | None = None
    reports: list[RecoveryReport] = field(default_factory=list)
    unconfirmed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Loaded:
    """An open registry and what is in it."""

    connection: sqlite3.Connection
    epoch: str
    last_seq: int
    runs: list[StoredRun]
    quarantine: list[dict[str, Any]]
    retained: pruning.Retained
    recovery: Recovery


def load(path: Path, at: float, find_missing: FindMissing | None = None) -> Loaded:
    """Open the file at `path` and read every live run; raises what open_writer raises.

    `at` is the time (Unix seconds) of what is quarantined and recovered.  `find_missing` reads the run
    directories.
    """
    mark = commit_mark.read(path)
    connection = open_writer(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        runs = _live_runs(connection, at)
        report = None
        if find_missing is not None:
            found = connection.execute(QUERIES["epoch"]).fetchone()
            loss = find_loss(connection, mark, str(found[0]) if found else None)
            report = recover(connection, [one.run for one in runs], loss, find_missing, at)
        if report is not None:
            runs = _live_runs(connection, at)
            crash_points.reach("recover.before_commit")
        epoch = _epoch(connection)
        connection.execute("COMMIT")
        if report is not None:
            crash_points.reach("recover.after_commit")
        last = connection.execute(QUERIES["last_seq"]).fetchone()
        unconfirmed = frozenset(found for (found,) in connection.execute(QUERIES["last_recorded_by"], (WHO,)))
        return Loaded(
            connection, epoch, last[0] if last else 0, runs, quarantine.entries(connection),
            pruning.read_retained(connection), Recovery(report, read_reports(connection, at), unconfirmed),
        )  # fmt: skip
    except sqlite3.DatabaseError as error:  # the check at opening did not find this damage
        connection.close()
        trouble = disk_trouble(error, path)
        raise trouble or DamagedRegistry(str(path), f"the registry is damaged ({error})") from error
    except BaseException:
        connection.close()
        raise


def _live_runs(connection: sqlite3.Connection, at: float) -> list[StoredRun]:
    runs: list[StoredRun] = []
    for row in rows(connection, QUERIES["live_runs"]):
        try:
            run = quarantine.checked_run(connection, row)
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
