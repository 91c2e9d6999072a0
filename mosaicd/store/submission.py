"""Admit a new run, inside a transaction of the writer.

Id, key and digest are looked up in the same transaction that inserts the run, so that two submits at the same
time cannot both insert it.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from mosaicd import crash_points
from mosaicd.core.event import Event
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.states import Dedup
from mosaicd.store import pruning
from mosaicd.store.database import rows
from mosaicd.store.event_writes import insert_run
from mosaicd.store.rows import read_run
from mosaicd.store.statements import QUERIES


@dataclass(frozen=True, slots=True)
class Admission:
    """The result of a submit: a new run with its seq and the number of its row, or the duplicate."""

    run: Run
    seq: int
    submit_order: int
    is_duplicate: bool


def admit(run: Run, event: Event, dedup: Dedup, connection: sqlite3.Connection) -> Admission:
    """Store `run` with its first event, or return the run that it duplicates; or raise Conflict."""
    other = _same_id(run, connection) or _same_key(run, connection)
    if other is None and dedup is not Dedup.NEW:
        other = _first_run(connection, "live_run_with_digest", (run.owner_uid, run.digest))
        if other is not None and dedup is Dedup.FAIL:
            raise Conflict(f"run {other.run_id} has the same config and is live", run_id=other.run_id)
    if other is not None:
        return Admission(other, 0, 0, is_duplicate=True)
    inserted = insert_run(connection, [(run, event)], Progress())
    crash_points.reach("submit.before_commit")
    return Admission(run, inserted.seqs[0], inserted.number, is_duplicate=False)


def _same_id(run: Run, connection: sqlite3.Connection) -> Run | None:
    other = _first_run(connection, "get_run", (run.run_id,))
    if other is None:
        pruning.refuse_reuse(connection, "pruned_run", (run.run_id,), f"the id {run.run_id}")
    if other is not None and (other.owner_uid, other.digest) != (run.owner_uid, run.digest):
        raise Conflict(f"another run has the id {run.run_id}", run_id=run.run_id)
    return other


def _same_key(run: Run, connection: sqlite3.Connection) -> Run | None:
    if run.key is None:
        return None
    other = _first_run(connection, "run_with_key", (run.owner_uid, run.key))
    if other is None:
        pruning.refuse_reuse(connection, "pruned_with_key", (run.owner_uid, run.key), f"the key {run.key!r}")
    if other is not None and other.digest != run.digest:
        raise Conflict(
            f"the key {run.key!r} was used by run {other.run_id} with another config", run_id=other.run_id
        )
    return other


def _first_run(connection: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> Run | None:
    found = rows(connection, QUERIES[query], values)
    return read_run(found[0]) if found else None
