"""A registry that opens cleanly and is behind: what run directories know and it does not is written into it.

It lost its newest commits (a write-ahead log deleted or cut by a copy, a disk that lied), or an older copy
was put in its place.  All of it is one transaction with the rest of the opening, before anybody decides by a
row: a crash before its COMMIT has changed nothing, after it nothing is left to do.  The ledger gets a new
epoch, since seqs that were given out are given out again.

A reader would get wrong: rows come first.  A row that is behind gives back what it held before anybody else
takes it, and a run that claims what a row still holds is not taken up but set aside, so that what it uses is
withheld: never two runs on one slot.
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mosaicd.core.fsm import Event, Kind, apply
from mosaicd.core.run import Run
from mosaicd.protocol.states import State
from mosaicd.store import rebuilding
from mosaicd.store.event_writes import Steps, change_of, write_change
from mosaicd.store.rebuilding import MOST_NAMED, UNFIT, Recollected
from mosaicd.store.statements import QUERIES

#: How long it is told of at every start.
TOLD_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Behind:
    """How it is known, before any directory was looked at, that commits are missing.

    `waits_are_held`: what waits is not to start before somebody has looked.
    """

    why: str
    waits_are_held: bool = False
    has_own_epoch: bool = False


@dataclass(slots=True)
class Found:
    """What run directories know: `lost` has no row, `late` is (the row as it stands, what it lacks)."""

    lost: list[Recollected] = field(default_factory=list)
    late: list[tuple[Run, Steps]] = field(default_factory=list)
    telling_nothing: dict[str, str] = field(default_factory=dict)


Look = Callable[[frozenset[str], Sequence[Run], bool], Found]


@dataclass(slots=True)
class Adopted:
    """What became of it; `not_taken_up` and `withheld` are run id -> why."""

    why: str
    at: float
    ended: int = 0
    live: int = 0
    waiting: int = 0
    pruned: int = 0
    brought_up: int = 0
    not_taken_up: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)

    @property
    def is_nothing(self) -> bool:
        """Whether no row was written."""
        counts = (self.ended, self.live, self.waiting, self.pruned, self.brought_up)
        return not any(counts) and not self.withheld

    def told(self) -> dict[str, Any]:
        """Return it as it is kept."""
        named = {"not_taken_up": self.not_taken_up, "withheld": self.withheld}
        return {
            "why": self.why, "at": round(self.at, 3), "ended": self.ended, "live": self.live,
            "waiting": self.waiting, "pruned": self.pruned, "brought_up": self.brought_up,
            **{name: dict(list(found.items())[:MOST_NAMED]) for name, found in named.items()},
        }  # fmt: skip


def behind(connection: sqlite3.Connection, mark: tuple[str, int] | None, epoch: str | None) -> Behind | None:
    """Return how it is known that the registry is behind, or None; `epoch` None: it is a new one."""
    told = _object(connection, "behind")
    if told:
        return Behind(str(told.get("why")), waits_are_held=True, has_own_epoch=True)
    if mark is None or epoch is None:
        return None
    last = connection.execute(QUERIES["last_seq"]).fetchone()
    missing = mark[1] - (int(last[0]) if last else 0)
    if mark[0] == epoch:
        return Behind(f"its newest {missing} events are gone") if missing > 0 else None
    before = connection.execute(QUERIES["meta"], ("epoch_before",)).fetchone()
    if before is not None and before[0] == mark[0]:
        return None  # killed between the new epoch's COMMIT and its mark
    return Behind("it is not the registry that was used last")


def adopt(
    connection: sqlite3.Connection, live: Sequence[Run], cause: Behind | None, look: Look, at: float
) -> Adopted | None:
    """Write what `look` finds, inside the transaction of the opening; None where nothing was missing."""
    found = look(known(connection), live, cause is not None)
    made = Adopted(cause.why if cause else "runs were found that it does not know", at)
    made.not_taken_up.update(found.telling_nothing)
    _bring_up(connection, found.late, made)
    claims = rebuilding.claimed(found.lost)
    for one in found.lost:
        _take_in(connection, _held(one, at) if cause and cause.waits_are_held else one, claims, made)
    connection.execute(QUERIES["drop_meta"], ("behind",))
    is_told = not made.is_nothing or (cause is not None and not cause.has_own_epoch)
    if not is_told:
        return None
    if cause is None or not cause.has_own_epoch:
        _begin_epoch(connection)
    connection.execute(QUERIES["set_meta"], ("adopted", json.dumps(made.told())))
    return made


def known(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the ids of all runs that there are or were: ended, pruned and set aside ones, too."""
    return frozenset(str(run_id) for (run_id,) in connection.execute(QUERIES["known_ids"]))


def told(connection: sqlite3.Connection, now: float) -> dict[str, Any] | None:
    """Return what was adopted last, for as long as it is told."""
    found = _object(connection, "adopted")
    at = found.get("at")
    return found if isinstance(at, int | float) and abs(now - at) < TOLD_S else None


def sentence(told: Mapping[str, Any]) -> str:
    """Return one line for whoever looks after the machine."""
    counts = f"{told['ended']} ended, {told['live']} live and {told['waiting']} waiting runs it did not know"
    more = [
        f"{told['brought_up']} that it knew less of" if told["brought_up"] else "",
        f"{told['pruned']} that were being pruned" if told["pruned"] else "",
    ]
    loud = [
        f"; not taken up, because another run has what they use, or their key: {' '.join(told['withheld'])}; "
        "look at them, and end what should not run"
        if told["withheld"] else "",
        f"; {len(told['not_taken_up'])} directories told nothing (see mosaicctl doctor)"
        if told["not_taken_up"] else "",
    ]  # fmt: skip
    return (
        f"the registry was behind its run directories: {told['why']}; taken up from there: {counts}"
        + "".join(f", {words}" for words in more if words) + "".join(loud)
        + "; what only the lost part knew (changes after the submit, pins, who asked for what) is lost"
    )  # fmt: skip


# --- inside -------------------------------------------------------------------------------------------


def _bring_up(connection: sqlite3.Connection, late: Sequence[tuple[Run, Steps]], made: Adopted) -> None:
    """Write what rows lack: all of them give back first, and who ends comes before who goes on."""
    for run, _ in late:
        connection.execute(QUERIES["give_back_slots"], (run.run_id,))
    for run, steps in sorted(late, key=lambda one: one[1][-1][0].is_holding):
        connection.execute("SAVEPOINT late")
        try:
            _go_on(connection, run, steps)
        except UNFIT as error:
            connection.execute("ROLLBACK TO late")
            made.not_taken_up[run.run_id] = str(error)
            _keep_slots(connection, run)
        else:
            made.brought_up += 1
        connection.execute("RELEASE late")


def _go_on(connection: sqlite3.Connection, run: Run, steps: Steps) -> None:
    write_change(connection, change_of(replace(run, slots=()), steps))  # it has given its slots back


def _keep_slots(connection: sqlite3.Connection, run: Run) -> None:
    """Give a row back what it held; what is another's by now makes it one that contradicts itself."""
    for slot in run.slots:
        try:
            connection.execute(QUERIES["take_slot"], (slot, run.run_id))
        except sqlite3.IntegrityError:
            return


def _take_in(
    connection: sqlite3.Connection, one: Recollected, claims: Mapping[int, str], made: Adopted
) -> None:
    run = one.steps[-1][0]
    try:
        why = rebuilding.take_in(connection, one, claims, made.at)
    except UNFIT as error:
        made.not_taken_up[run.run_id] = str(error)
        return
    if why is not None:
        made.withheld[run.run_id] = why
    elif one.is_pruned:
        made.pruned += 1
    else:
        made.ended += run.is_final
        made.waiting += run.is_waiting
        made.live += run.is_holding


def _held(one: Recollected, at: float) -> Recollected:
    run = one.steps[-1][0]
    if run.state is not State.INIT or run.held:
        return one
    event = Event(Kind.HOLD, at, "restore")
    return replace(one, steps=[*one.steps, (apply(run, event), event)])


def _begin_epoch(connection: sqlite3.Connection) -> None:
    before = connection.execute(QUERIES["epoch"]).fetchone()
    if before is not None:
        connection.execute(QUERIES["set_meta"], ("epoch_before", before[0]))
    connection.execute(QUERIES["change_epoch"], (secrets.token_hex(8),))


def _object(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    found = connection.execute(QUERIES["meta"], (name,)).fetchone()
    try:
        value = json.loads(found[0]) if found else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
