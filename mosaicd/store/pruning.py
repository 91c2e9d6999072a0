"""Pins and pruned runs: what retention may not take, what it took, and what is left of that.

A pruned run leaves a row in `pruned`, so its id and key are never another run's and whoever asks for it is
told.  Its events are gone and their seqs are not used again: a replay from before `pruned_seq` has holes.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mosaicd.core.retention import Ended
from mosaicd.protocol.errors import Conflict, NotFound
from mosaicd.store.database import rows
from mosaicd.store.statements import QUERIES


def pin(run_id: str, who: str, at: float, pinned: bool, connection: sqlite3.Connection) -> None:
    """Set or take the pin of a run; NotFound for a run that is gone."""
    if connection.execute(QUERIES["get_run"], (run_id,)).fetchone() is None:
        raise NotFound(f"there is no run {run_id}", run_id=run_id)
    if pinned:
        connection.execute(QUERIES["pin"], (run_id, who, at))
    else:
        connection.execute(QUERIES["unpin"], (run_id,))


def prune(
    sizes: Mapping[str, int], who: str, at: float, connection: sqlite3.Connection
) -> tuple[list[str], int]:
    """Take rows and events of ended, unpinned runs away; return their ids and the newest seq taken."""
    taken = []
    for run_id, size_bytes in sizes.items():
        values = {"run_id": run_id, "size_bytes": size_bytes, "who": who, "at": at}
        if connection.execute(QUERIES["prune_mark"], values).rowcount != 1:
            continue
        connection.execute(QUERIES["prune_events"], (run_id,))
        connection.execute(QUERIES["prune_run"], (run_id,))
        taken.append(run_id)
    return taken, int(connection.execute(QUERIES["pruned_seq"]).fetchone()[0])


def candidates(found: Sequence[Mapping[str, Any]]) -> list[Ended]:
    """Return rows of `ended_query` as what the policy judges; a row that cannot be read is left alone."""
    return [
        Ended(**{**row, "pinned": bool(row["pinned"])})
        for row in found
        if isinstance(row["name"], str) and isinstance(row["finished_at"], float)
    ]


def refuse_spent(connection: sqlite3.Connection, query: str, values: tuple[Any, ...], what: str) -> None:
    """Raise Conflict when `query` finds the remains of a pruned run."""
    found = rows(connection, QUERIES[query], values)
    if found:
        raise Conflict(
            f"{what} was used by run {found[0]['run_id']}, which has been pruned",
            run_id=found[0]["run_id"], pruned_at=found[0]["at"],
        )  # fmt: skip


def spent(connection: sqlite3.Connection, reference: str, owner_uid: int | None) -> NotFound | None:
    """Return what to tell somebody who asks for a pruned run by its id; None where there was none."""
    for row in rows(connection, QUERIES["pruned_run"], (reference.upper(),)):
        if owner_uid in (None, row["owner_uid"]):
            on = f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d %H:%M:%S} UTC"
            return NotFound(
                f"run {row['run_id']} ({row['name']}, {row['outcome']}) was pruned on {on} by {row['who']}",
                run_id=row["run_id"], outcome=row["outcome"], pruned_at=row["at"],
            )  # fmt: skip
    return None
