"""Write the row, events and slots of a run in one transaction; all events reach the disk through this module.

The registry, submits, imports and recovery use it.  A row is written only if its revision is as expected.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaicd.core.fsm import Event
from mosaicd.core.run import Progress, Run
from mosaicd.store.rows import event_values, progress_text, run_values
from mosaicd.store.statements import QUERIES
from mosaicd.store.writer import LostUpdate

#: Events in order, each with the run after it.
Steps = Sequence[tuple[Run, Event]]


@dataclass(frozen=True, slots=True)
class Change:
    """The rows to write for events of a run that has a row; `slots` is None if its slots do not change."""

    run_id: str
    values: Mapping[str, Any]
    events: Sequence[tuple[Any, ...]]
    slots: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Inserted:
    """A new row: its number, which is the order of submission, and the seqs of its events."""

    number: int
    seqs: Sequence[int]


def change_of(run: Run, steps: Steps, progress: Progress | None = None) -> Change:
    """Return the change that `steps` make to the row of `run`.

    Raises ValueError for a value that JSON cannot hold.
    `progress`: the last values to store with them; None keeps those of the row.
    """
    after = steps[-1][0]
    values = run_values(after)
    values["was"] = run.rev
    values["progress"] = progress and progress_text(progress)
    events = [event_values(*step) for step in steps]
    return Change(run.run_id, values, events, after.slots if after.slots != run.slots else None)


def write_change(connection: sqlite3.Connection, change: Change) -> list[int]:
    """Write the change and return the seqs of its events.

    Raises LostUpdate if the row has another revision.
    """
    if change.slots is not None:
        connection.execute(QUERIES["give_back_slots"], (change.run_id,))
    if connection.execute(QUERIES["update_run"], change.values).rowcount != 1:
        raise LostUpdate(f"run {change.run_id} is no longer at revision {change.values['was']}")
    seqs = [connection.execute(QUERIES["insert_event"], event).lastrowid or 0 for event in change.events]
    for slot in change.slots or ():
        connection.execute(QUERIES["take_slot"], (slot, change.run_id))
    return seqs


def insert_run(connection: sqlite3.Connection, steps: Steps, progress: Progress) -> Inserted:
    """Write a run that has no row yet, with all of its events and its slots."""
    run = steps[-1][0]
    inserted = insert_without_slots(connection, steps, progress)
    for slot in run.slots:
        connection.execute(QUERIES["take_slot"], (slot, run.run_id))
    return inserted


def insert_without_slots(connection: sqlite3.Connection, steps: Steps, progress: Progress) -> Inserted:
    """Write a run that has no row yet, with all of its events, but without taking its slots."""
    values = {**run_values(steps[-1][0]), "progress": progress_text(progress)}
    row = connection.execute(QUERIES["insert_run"], values)
    seqs = [connection.execute(QUERIES["insert_event"], event_values(*step)).lastrowid or 0 for step in steps]
    return Inserted(row.lastrowid or 0, seqs)
