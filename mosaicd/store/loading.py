"""Open the registry and read every live run with its last values.

One transaction quarantines rows that contradict themselves and recovers runs that only run directories hold.
Nothing else reads the rows before its COMMIT.
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
    """The recoveries of this registry.

    `new`: the report of this opening, or None.  `reports`: all reports that are still shown, with `new`.
    `unconfirmed`: ids of recovered live runs that have had no event since.
    """

    new: RecoveryReport | None = None
    reports: list[RecoveryReport] = field(default_factory=list)
    unconfirmed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Loaded:
    """An open registry and its contents."""

    connection: sqlite3.Connection
    epoch: str
    last_seq: int
    runs: list[StoredRun]
    quarantine: list[dict[str, Any]]
    retained: pruning.Retained
    recovery: Recovery


def load(path: Path, at: float, find_missing: FindMissing | None = None) -> Loaded:
    """Open the registry at `path` and read every live run; raises the errors of `open_writer`.

    `at` (Unix seconds) is the time of quarantines and recoveries.  `find_missing` reads the run directories.
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
    except sqlite3.DatabaseError as error:  # damage that the check at opening missed
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
            quarantine.quarantine_row(connection, int(row["n"]), str(error), at)
    return runs


def _epoch(connection: sqlite3.Connection) -> str:
    """Return the epoch: the random id of this ledger, to which cursors belong; write one for a new ledger."""
    found = connection.execute(QUERIES["epoch"]).fetchone()
    if found is not None:
        return str(found[0])
    epoch = secrets.token_hex(8)
    connection.execute(QUERIES["set_epoch"], (epoch,))
    return epoch
