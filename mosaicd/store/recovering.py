"""Recover runs: when the registry opens, write into it what the run directories hold and the registry lacks.

A registry lacks commits if its write-ahead log was deleted or cut, if the disk lost writes, if an older copy
was put in its place, or if it was lost and is empty now.  All of it is written in the transaction of the
opening, so a recovery that crashes has changed nothing.  The ledger gets a new epoch, because seqs are used
again.

Note: rows that are behind are written first, so that they give their slots back before other runs take them.
A run that needs slots of another run is quarantined, and its slots stay reserved: two runs never share a
slot.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mosaicd.core.fsm import Event, Kind, apply
from mosaicd.core.replay_rundir import WHO
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.states import State
from mosaicd.store import pruning, quarantine
from mosaicd.store.database import rows
from mosaicd.store.event_writes import Steps, change_of, insert_run, insert_without_slots, write_change
from mosaicd.store.loss import Loss, forget_loss
from mosaicd.store.recovery_report import RecoveryReport, write_report
from mosaicd.store.statements import QUERIES

#: Errors that fail only the run that cannot be stored.
_OWN_FAULTS = (
    ValueError, TypeError, OverflowError, sqlite3.IntegrityError, sqlite3.ProgrammingError,
    sqlite3.InterfaceError, sqlite3.DataError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """A run recovered from its directory.  `is_held`: its shim lives; `is_pruned`: its pruning had begun."""

    steps: Steps
    progress: Progress
    is_held: bool = False
    is_pruned: bool = False

    @property
    def run(self) -> Run:
        """Return the run after all of its events."""
        return self.steps[-1][0]


@dataclass(slots=True)
class MissingRuns:
    """The runs and events that run directories hold and the registry lacks.

    `without_row`: runs without a row.  `behind`: (the run of the row, the steps that it lacks).
    `unreadable`: directory -> reason.
    """

    without_row: list[RecoveredRun] = field(default_factory=list)
    behind: list[tuple[Run, Steps]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


#: Reads the run directories: known run ids, live runs, whether the registry is known to lack commits.
FindMissing = Callable[[frozenset[str], Sequence[Run], bool], MissingRuns]


def recover(
    connection: sqlite3.Connection,
    live: Sequence[Run],
    loss: Loss | None,
    find_missing: FindMissing,
    at: float,
) -> RecoveryReport | None:
    """Write the runs that `find_missing` finds; return a report, or None if nothing was missing.

    Call it inside the transaction of the opening.  `at` is the time of the recovery.
    """
    known = frozenset(str(run_id) for (run_id,) in connection.execute(QUERIES["known_ids"]))
    missing = find_missing(known, live, loss is not None)
    report = RecoveryReport("run directories were found that it does not know", round(at, 3))
    if loss is not None:
        report.why, report.set_aside = loss.why, loss.set_aside
    report.not_recovered.update(missing.unreadable)
    _catch_up_rows(connection, missing.behind, report)
    if loss is not None and loss.is_restored_copy:
        missing.without_row = [_held(recovered, at) for recovered in missing.without_row]
    _insert_runs(connection, missing.without_row, report)
    forget_loss(connection)
    if report.is_empty and (loss is None or loss.is_restored_copy):
        return None
    if loss is None or not loss.has_new_epoch:
        _begin_epoch(connection)
    write_report(connection, report)
    return report


def _catch_up_rows(
    connection: sqlite3.Connection, behind: Sequence[tuple[Run, Steps]], report: RecoveryReport
) -> None:
    """Write the steps that rows lack: all slots are freed first; runs that end come first."""
    for run, _ in behind:
        connection.execute(QUERIES["give_back_slots"], (run.run_id,))
    for run, steps in sorted(behind, key=lambda item: item[1][-1][0].is_holding):
        connection.execute("SAVEPOINT row")
        try:
            write_change(connection, change_of(replace(run, slots=()), steps))
        except _OWN_FAULTS as error:
            connection.execute("ROLLBACK TO row")
            report.not_recovered[run.run_id] = str(error)
            _take_slots_again(connection, run)
        else:
            report.caught_up += 1
        connection.execute("RELEASE row")


def _take_slots_again(connection: sqlite3.Connection, run: Run) -> None:
    """Give a row its slots back; if another run has one of them now, the row is quarantined later."""
    for slot in run.slots:
        try:
            connection.execute(QUERIES["take_slot"], (slot, run.run_id))
        except sqlite3.IntegrityError:
            return


def _insert_runs(
    connection: sqlite3.Connection, runs: Sequence[RecoveredRun], report: RecoveryReport
) -> None:
    """Write the runs that have no row; a run that cannot be stored is `not_recovered` in the report."""
    holders = _holders(runs)
    for recovered in runs:
        connection.execute("SAVEPOINT run")
        try:
            _insert_run(connection, recovered, holders, report)
        except _OWN_FAULTS as error:
            connection.execute("ROLLBACK TO run")
            report.not_recovered[recovered.run.run_id] = str(error)
        connection.execute("RELEASE run")


def _holders(runs: Iterable[RecoveredRun]) -> dict[int, str]:
    """Return the run that gets each slot: a run whose shim lives comes first, then the earlier submit."""
    holders: dict[int, str] = {}
    for recovered in sorted(runs, key=lambda recovered: not recovered.is_held):
        for slot in recovered.run.slots:
            holders.setdefault(slot, recovered.run.run_id)
    return holders


def _insert_run(
    connection: sqlite3.Connection,
    recovered: RecoveredRun,
    holders: Mapping[int, str],
    report: RecoveryReport,
) -> None:
    """Write and count a run; a run in conflict with another is quarantined, so its slots stay reserved."""
    run = recovered.run
    conflict = _conflict(connection, run, holders)
    if conflict is not None:
        _insert_quarantined(connection, recovered, conflict, report.at)
        report.quarantined[run.run_id] = conflict
        return
    insert_run(connection, recovered.steps, recovered.progress)
    if recovered.is_pruned:
        pruning.prune({run.run_id: 0}, WHO, report.at, connection)
        report.pruned += 1
        return
    report.ended += run.is_final
    report.waiting += run.is_waiting
    report.live += run.is_holding


def _conflict(connection: sqlite3.Connection, run: Run, holders: Mapping[int, str]) -> str | None:
    """Return a sentence that names the other run with the key or the slots of `run`, or None."""
    if run.key is not None:
        for other in rows(connection, QUERIES["run_with_key"], (run.owner_uid, run.key)):
            return f"run {other['run_id']} has the same key"
    others = {name for slot in run.slots for (name,) in connection.execute(QUERIES["holder"], (slot,))}
    others |= {holders.get(slot, run.run_id) for slot in run.slots} - {run.run_id}
    return f"run {min(others)} holds the same slots" if others else None


def _insert_quarantined(connection: sqlite3.Connection, recovered: RecoveredRun, why: str, at: float) -> None:
    """Write a run into the quarantine; its slots are kept in its row and events only."""
    run = replace(recovered.run, key=None)  # another run may have the key
    steps = [*recovered.steps[:-1], (run, recovered.steps[-1][1])]
    inserted = insert_without_slots(connection, steps, recovered.progress)
    quarantine.quarantine_row(connection, inserted.number, why, at)


def _held(recovered: RecoveredRun, at: float) -> RecoveredRun:
    """Hold the run if it waits, because it may have been stopped since the copy was made; return it."""
    if recovered.run.state is not State.INIT or recovered.run.held:
        return recovered
    event = Event(Kind.HOLD, at, "restore")
    return replace(recovered, steps=[*recovered.steps, (apply(recovered.run, event), event)])


def _begin_epoch(connection: sqlite3.Connection) -> None:
    before = connection.execute(QUERIES["epoch"]).fetchone()
    if before is not None:
        connection.execute(QUERIES["set_meta"], ("epoch_before", before[0]))
    connection.execute(QUERIES["change_epoch"], (secrets.token_hex(8),))
