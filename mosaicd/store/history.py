"""Read runs, live or ended, and the ledger, over read-only connections in separate threads.

The result of a call contains everything that was committed before it.  No snapshot is held between calls, so
a slow client never prevents the truncation of the WAL.  A row that cannot be read is left out and reported
through `on_bad`.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mosaicd.core.retention import EndedRun
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import Conflict, NotFound, Unavailable
from mosaicd.protocol.messages import ListRuns
from mosaicd.protocol.states import State
from mosaicd.store import pruning
from mosaicd.store.database import disk_trouble, open_reader, rows
from mosaicd.store.listing import ended_query, page_query
from mosaicd.store.rows import BadRow, StoredEvent, read_progress, read_run, read_stored_event
from mosaicd.store.statements import QUERIES

__all__ = ["History", "StoredEvent"]

THREADS = 2
DEFAULT_LIMIT = 1000

T = TypeVar("T")
RunAndProgress = tuple[Run, Progress]
UnreadableRow = tuple[str, str]
Rows = list[dict[str, Any]]


class History:
    """Reads of one registry; open it after the registry, and close it before."""

    def __init__(self, path: Path, on_bad: Callable[[str, str], None] | None = None) -> None:
        self._path = path
        self._on_bad = on_bad
        self._thread_local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(THREADS, "history")
        self._is_closed = False

    async def get(self, run_id: str) -> RunAndProgress | None:
        """Return the run with this full id, or None."""
        found = await self._read(lambda connection: rows(connection, QUERIES["get_run"], (run_id,)))
        return self._first_readable(found)

    async def find(self, owner_uid: int | None, reference: str) -> Run:
        """Return the run with this id or unique prefix of an id, or the newest with this name.

        Raises NotFound, or Conflict for an ambiguous prefix that is no name.  `owner_uid` None searches the
        runs of all users.
        """
        found = await self._read(lambda connection: _rows_for_reference(connection, owner_uid, reference))
        seen = self._first_readable(found)
        if seen is None:
            pruned = await self._read(
                lambda connection: pruning.pruned_error(connection, reference, owner_uid)
            )
            raise pruned or NotFound(f"there is no run {reference!r}", reference=reference)
        return seen[0]

    async def list(
        self,
        filters: ListRuns = ListRuns(),  # noqa: B008  (frozen)
        owner_uid: int | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> tuple[Sequence[RunAndProgress], str | None]:
        """Return one page in the order of submission, and the cursor of the next page (None: no more runs).

        `after` and `limit` replace those of `filters`; raise InvalidParams for an unknown word in a filter.
        """
        size = max(1, limit or filters.limit or DEFAULT_LIMIT)
        sql, values = page_query(filters, owner_uid, after or filters.cursor, size + 1)
        page, cursor, bad = await self._read(lambda connection: _page(rows(connection, sql, values), size))
        self._report(bad)
        return page, cursor

    async def ended(self, filters: ListRuns, owner_uid: int | None = None) -> Sequence[EndedRun]:
        """Return every ended run that matches the filters, the one that ended first at the front."""
        sql, values = ended_query(filters, owner_uid)
        return await self._read(lambda connection: pruning.candidates(rows(connection, sql, values)))

    async def events(self, since: int, limit: int, run_id: str | None = None) -> Sequence[StoredEvent]:
        """Return at most `limit` events with seq > `since`, of one run or of all."""
        query, values = ("events_since", (since, limit)) if run_id is None else (
            "events_of_run_since", (run_id, since, limit)
        )  # fmt: skip

        def work(connection: sqlite3.Connection) -> Sequence[StoredEvent]:
            return [read_stored_event(row) for row in rows(connection, QUERIES[query], values)]

        return await self._read(work)

    async def newest_pause_fact(self, run_id: str) -> tuple[str, float] | None:
        """Return the kind and time of the newest `paused` or `continued` event of a run, or None."""
        query = QUERIES["newest_pause_fact"]
        found = await self._read(lambda connection: connection.execute(query, (run_id,)).fetchone())
        return (str(found[0]), float(found[1])) if found else None

    async def last_seq(self) -> int:
        """Return the highest seq that was ever used; 0 for an empty ledger."""
        found = await self._read(lambda connection: connection.execute(QUERIES["last_seq"]).fetchone())
        return int(found[0]) if found else 0

    async def seq_before(self, at: float) -> int:
        """Return the seq before the first event at the time `at` or later; the last seq if there is none."""

        def work(connection: sqlite3.Connection) -> int:
            found = connection.execute(QUERIES["first_event_at"], (at,)).fetchone()
            last = connection.execute(QUERIES["last_seq"]).fetchone()
            return int(found[0]) - 1 if found else int(last[0]) if last else 0

        return await self._read(work)

    async def counts(self) -> dict[str, int]:
        """Return the number of runs in each state, also 0."""

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            live = dict(connection.execute(QUERIES["count_live"]).fetchall())
            total = connection.execute(QUERIES["count_all"]).fetchone()[0]
            return {**{str(state): live.get(state, 0) for state in State}, "TERM": total - sum(live.values())}

        return await self._read(work)

    async def close(self) -> None:
        """Wait for the reads in progress, then close all connections; later calls raise Unavailable."""
        self._is_closed = True
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._connections:
            connection.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._is_closed:
            raise Unavailable("the daemon is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._carry_out, work)

    def _carry_out(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in this thread with its connection; raise Unavailable if the disk is at fault."""
        try:
            connection: sqlite3.Connection | None = getattr(self._thread_local, "connection", None)
            if connection is None:
                connection = self._thread_local.connection = open_reader(self._path)
                self._connections.append(connection)
            return work(connection)
        except sqlite3.Error as error:
            raise disk_trouble(error, self._path) or error from error

    def _first_readable(self, found: Rows) -> RunAndProgress | None:
        page, _, bad = _page(found, 1)
        self._report(bad)
        return page[0] if page else None

    def _report(self, bad: Iterable[UnreadableRow]) -> None:
        for run_id, why in bad:
            if self._on_bad is not None:
                self._on_bad(run_id, why)


def _page(found: Rows, size: int) -> tuple[list[RunAndProgress], str | None, list[UnreadableRow]]:
    """Return the readable runs of the first `size` rows, the next cursor, and the unreadable rows."""
    seen: list[RunAndProgress] = []
    bad: list[UnreadableRow] = []
    for row in found[:size]:
        try:
            seen.append((read_run(row), read_progress(row)))
        except BadRow as error:
            bad.append((str(row["run_id"]), str(error)))
    return seen, str(found[size - 1]["n"]) if len(found) > size else None, bad


def _rows_for_reference(
    connection: sqlite3.Connection, owner_uid: int | None, reference: str
) -> list[dict[str, Any]]:
    if not reference:
        return []
    prefixed = {"prefix": reference.upper(), "owner_uid": owner_uid}
    candidates = rows(connection, QUERIES["runs_with_prefix"], prefixed)
    if len(candidates) == 1:
        return rows(connection, QUERIES["get_run"], (candidates[0]["run_id"],))
    found = rows(connection, QUERIES["newest_named"], {"name": reference, "owner_uid": owner_uid})
    if candidates and not found:
        shown = [{"run_id": row["run_id"], "name": row["name"]} for row in candidates]
        raise Conflict(f"{reference!r} is ambiguous: several runs begin with it", candidates=shown)
    return found
