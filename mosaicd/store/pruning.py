"""Pinned runs, which retention never removes, and pruned runs, which it has removed.

A pruned run leaves a row in the table `pruned`: its id and key are never used again, and a request for it
gets a clear answer.  Its events are deleted, so a replay from before `pruned_seq` has gaps.
`RetentionRecords` holds both in memory; the functions below it work inside a transaction.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mosaicd.clock import Clock
from mosaicd.core.retention import EndedRun
from mosaicd.protocol.errors import Conflict, NotFound
from mosaicd.store.database import rows
from mosaicd.store.statements import QUERIES
from mosaicd.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Retained:
    """Pinned runs, the seq of the newest pruned event, and pruned runs whose directory may still exist."""

    pins: frozenset[str]
    pruned_seq: int
    pruned_left: frozenset[str]


class RetentionRecords:
    """Pins and prunes runs; `pins`, `pruned_seq` and `pruned_left` follow after each COMMIT."""

    def __init__(self, writer: Writer, clock: Clock, retained: Retained) -> None:
        self._writer = writer
        self._clock = clock
        self.pins = set(retained.pins)
        self.pruned_seq = retained.pruned_seq
        self.pruned_left = set(retained.pruned_left)

    async def pin(self, run_id: str, who: str, *, pinned: bool = True) -> None:
        """Pin or unpin a live or ended run; raise NotFound if the run is not in the registry."""
        await self._writer.send(partial(pin, run_id, who, self._clock.wall(), pinned))
        (self.pins.add if pinned else self.pins.discard)(run_id)

    async def prune(self, sizes: Mapping[str, int], who: str) -> list[str]:
        """Delete the rows and events of ended runs that are not pinned, in one transaction; return their ids.

        `sizes` are bytes by run id.  The returned ids stay in `pruned_left` until `note_removed` is called.
        """
        taken: list[str]
        taken, seq = await self._writer.send(partial(prune, sizes, who, self._clock.wall()))
        self.pruned_left.update(taken)
        self.pruned_seq = max(self.pruned_seq, seq)
        return taken

    async def note_removed(self, run_ids: Sequence[str]) -> None:
        """Record that the directories of pruned runs are removed."""
        values = [(run_id,) for run_id in run_ids]
        await self._writer.send(lambda connection: connection.executemany(QUERIES["prune_done"], values))
        self.pruned_left.difference_update(run_ids)


def read_retained(connection: sqlite3.Connection) -> Retained:
    """Return the pins and the pruned runs that the registry holds."""
    return Retained(
        frozenset(str(found) for (found,) in connection.execute(QUERIES["pins"])),
        int(connection.execute(QUERIES["pruned_seq"]).fetchone()[0]),
        frozenset(str(found) for (found,) in connection.execute(QUERIES["pruned_left"])),
    )


def pin(run_id: str, who: str, at: float, pinned: bool, connection: sqlite3.Connection) -> None:
    """Pin or unpin a run; raise NotFound if the run is not in the registry."""
    if connection.execute(QUERIES["get_run"], (run_id,)).fetchone() is None:
        raise NotFound(f"there is no run {run_id}", run_id=run_id)
    if pinned:
        connection.execute(QUERIES["pin"], (run_id, who, at))
    else:
        connection.execute(QUERIES["unpin"], (run_id,))


def prune(
    sizes: Mapping[str, int], who: str, at: float, connection: sqlite3.Connection
) -> tuple[list[str], int]:
    """Delete the rows and events of ended runs that are not pinned; return their ids and `pruned_seq`."""
    taken = []
    for run_id, size_bytes in sizes.items():
        values = {"run_id": run_id, "size_bytes": size_bytes, "who": who, "at": at}
        if connection.execute(QUERIES["prune_mark"], values).rowcount != 1:
            continue
        connection.execute(QUERIES["prune_events"], (run_id,))
        connection.execute(QUERIES["prune_run"], (run_id,))
        taken.append(run_id)
    return taken, int(connection.execute(QUERIES["pruned_seq"]).fetchone()[0])


def candidates(found: Sequence[Mapping[str, Any]]) -> list[EndedRun]:
    """Return the rows of `ended_query` for the retention policy, without rows that cannot be read."""
    return [
        EndedRun(**{**row, "pinned": bool(row["pinned"])})
        for row in found
        if isinstance(row["name"], str) and isinstance(row["finished_at"], float)
    ]


def refuse_reuse(connection: sqlite3.Connection, query: str, values: tuple[Any, ...], subject: str) -> None:
    """Raise Conflict if `query` finds a pruned run."""
    found = rows(connection, QUERIES[query], values)
    if found:
        raise Conflict(
            f"{subject} was used by run {found[0]['run_id']}, which has been pruned",
            run_id=found[0]["run_id"], pruned_at=found[0]["at"],
        )  # fmt: skip


def pruned_error(connection: sqlite3.Connection, reference: str, owner_uid: int | None) -> NotFound | None:
    """Return the error for a request that names a pruned run by its id; None if no such run was pruned."""
    for row in rows(connection, QUERIES["pruned_run"], (reference.upper(),)):
        if owner_uid in (None, row["owner_uid"]):
            on = f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d %H:%M:%S} UTC"
            return NotFound(
                f"run {row['run_id']} ({row['name']}, {row['outcome']}) was pruned on {on} by {row['who']}",
                run_id=row["run_id"], outcome=row["outcome"], pruned_at=row["at"],
            )  # fmt: skip
    return None
