"""Recovers runs: what the run directories hold and the registry lacks is written into it when it opens.

The registry lost its newest commits (its write-ahead log was deleted or cut by a copy, or a disk lied), an
older copy was put in its place, or it is empty because it was lost as a whole.  Everything is written in the
one transaction of the opening, before any decision is made by a row: a crash before its COMMIT has changed
nothing, after it nothing is left to do.  The ledger gets a new epoch, because seqs that were used are used
again.

Note: rows that are too old come first.  Such a row gives its slots back before another run takes them.  A run
that needs slots that a row still holds is quarantined, so that its slots stay reserved: two runs never share
a slot.
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

#: Errors of a run that cannot be stored; other runs can.
_UNFIT = (
    ValueError, TypeError, OverflowError, sqlite3.IntegrityError, sqlite3.ProgrammingError,
    sqlite3.InterfaceError, sqlite3.DataError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """A run made from its directory.  `is_held`: a shim of it lives; `is_pruned`: it was to be removed."""

    steps: Steps
    progress: Progress
    is_held: bool = False
    is_pruned: bool = False

    @property
    def run(self) -> Run:
        """The run after all of its events."""
        return self.steps[-1][0]


@dataclass(slots=True)
class MissingRuns:
    """What run directories hold and the registry lacks.

    `without_row` have no row; `behind` are (the row as it stands, what it lacks); `unreadable` is
    directory -> why.
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
    """Write what `find_missing` finds, inside the transaction of the opening; None if nothing was missing.

    `at` is the time of the recovery.
    """
    known = frozenset(str(run_id) for (run_id,) in connection.execute(QUERIES["known_ids"]))
    missing = find_missing(known, live, loss is not None)
    report = RecoveryReport("run directories were found that it does not know", round(at, 3))
    if loss is not None:
        report.why, report.set_aside = loss.why, loss.set_aside
    report.not_recovered.update(missing.unreadable)
    _catch_up_rows(connection, missing.behind, report)
    if loss is not None and loss.is_restored_copy:
        missing.without_row = [_held(one, at) for one in missing.without_row]
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
    """Write what rows lack: all of them give their slots back first, and runs that end come first."""
    for run, _ in behind:
        connection.execute(QUERIES["give_back_slots"], (run.run_id,))
    for run, steps in sorted(behind, key=lambda one: one[1][-1][0].is_holding):
        connection.execute("SAVEPOINT row")
        try:
            write_change(connection, change_of(replace(run, slots=()), steps))
        except _UNFIT as error:
            connection.execute("ROLLBACK TO row")
            report.not_recovered[run.run_id] = str(error)
            _take_slots_again(connection, run)
        else:
            report.caught_up += 1
        connection.execute("RELEASE row")


def _take_slots_again(connection: sqlite3.Connection, run: Run) -> None:
    """Give a row the slots that it had; if another run has one by now, the row contradicts itself."""
    for slot in run.slots:
        try:
            connection.execute(QUERIES["take_slot"], (slot, run.run_id))
        except sqlite3.IntegrityError:
            return


def _insert_runs(
    connection: sqlite3.Connection, runs: Sequence[RecoveredRun], report: RecoveryReport
) -> None:
    """Write runs that have no row; a run of which that fails is `not_recovered` in the report."""
    holders = _holders(runs)
    for one in runs:
        connection.execute("SAVEPOINT run")
        try:
            _insert_run(connection, one, holders, report)
        except _UNFIT as error:
            connection.execute("ROLLBACK TO run")
            report.not_recovered[one.run.run_id] = str(error)
        connection.execute("RELEASE run")


def _holders(runs: Iterable[RecoveredRun]) -> dict[int, str]:
    """Return which run has each slot: a run whose shim lives comes first, then the one submitted first."""
    holders: dict[int, str] = {}
    for one in sorted(runs, key=lambda one: not one.is_held):
        for slot in one.run.slots:
            holders.setdefault(slot, one.run.run_id)
    return holders


def _insert_run(
    connection: sqlite3.Connection, one: RecoveredRun, holders: Mapping[int, str], report: RecoveryReport
) -> None:
    """Write a run and count it; a run in conflict with another is quarantined, so its slots stay reserved."""
    run = one.run
    conflict = _conflict(connection, run, holders)
    if conflict is not None:
        _insert_quarantined(connection, one, conflict, report.at)
        report.quarantined[run.run_id] = conflict
        return
    insert_run(connection, one.steps, one.progress)
    if one.is_pruned:
        pruning.prune({run.run_id: 0}, WHO, report.at, connection)
        report.pruned += 1
        return
    report.ended += run.is_final
    report.waiting += run.is_waiting
    report.live += run.is_holding


def _conflict(connection: sqlite3.Connection, run: Run, holders: Mapping[int, str]) -> str | None:
    """Return which other run has the key or the slots of `run`, as a sentence; None if no run has."""
    if run.key is not None:
        for other in rows(connection, QUERIES["run_with_key"], (run.owner_uid, run.key)):
            return f"run {other['run_id']} has the same key"
    others = {name for slot in run.slots for (name,) in connection.execute(QUERIES["holder"], (slot,))}
    others |= {holders.get(slot, run.run_id) for slot in run.slots} - {run.run_id}
    return f"run {min(others)} holds the same slots" if others else None


def _insert_quarantined(connection: sqlite3.Connection, one: RecoveredRun, why: str, at: float) -> None:
    """Write a run into quarantine; its slots stand in its row and its events, and not among the held ones."""
    run = replace(one.run, key=None)  # another run may have the key
    steps = [*one.steps[:-1], (run, one.steps[-1][1])]
    inserted = insert_without_slots(connection, steps, one.progress)
    quarantine.set_aside(connection, inserted.number, why, at)


def _held(one: RecoveredRun, at: float) -> RecoveredRun:
    """Return a run that waits as one that is held: it may have been stopped since the copy was made."""
    if one.run.state is not State.INIT or one.run.held:
        return one
    event = Event(Kind.HOLD, at, "restore")
    return replace(one, steps=[*one.steps, (apply(one.run, event), event)])


def _begin_epoch(connection: sqlite3.Connection) -> None:
    before = connection.execute(QUERIES["epoch"]).fetchone()
    if before is not None:
        connection.execute(QUERIES["set_meta"], ("epoch_before", before[0]))
    connection.execute(QUERIES["change_epoch"], (secrets.token_hex(8),))
