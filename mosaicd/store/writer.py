"""The writer thread: group commit over the one writing connection.

All work that is sent in one iteration of the event loop, or while the thread is busy, shares the next COMMIT
(and its fsync).  Each piece of work has a SAVEPOINT, so a piece that fails does not affect the others.  A
disk error fails the complete batch; the next batch tries again.  Work that is not urgent waits up to
`delay_s` for urgent work to share its COMMIT; other work is never delayed.

Note: `on_settled` is called on the loop when the batch has ended: with the result after the COMMIT, or with
the error after a failure.  It is called for each piece in order, before any future gets its result, and also
if the waiting caller was cancelled.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mosaicd import crash_points
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError, Unavailable
from mosaicd.store.database import disk_trouble, truncate_wal

Work = Callable[[sqlite3.Connection], Any]
Settled = Callable[[Any, BaseException | None], None]

BATCH_LIMIT = 512


class LostUpdate(Exception):
    """The row has changed since it was read: another process writes to the registry."""


#: Errors that fail only their own piece of work.  Any other error stops the writer.
_OWN_FAULTS = (
    MosaicError, LostUpdate, ValueError, TypeError, OverflowError, sqlite3.IntegrityError,
    sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError,
)  # fmt: skip


class Piece:
    """One piece of work that was sent: the work, its future and callback, and its result or error."""

    __slots__ = ("error", "future", "is_outside", "on_settled", "result", "work")

    def __init__(
        self, work: Work, future: asyncio.Future[Any] | None, on_settled: Settled | None, is_outside: bool
    ) -> None:
        self.work = work
        self.future = future
        self.on_settled = on_settled
        self.is_outside = is_outside
        self.result: Any = None
        self.error: BaseException | None = None


@dataclass(slots=True)
class WriteTimes:
    """Durations of transactions, each from its BEGIN until it was on the disk."""

    count: int = 0
    total_s: float = 0.0
    slowest_s: float = 0.0

    def add(self, took_s: float) -> None:
        """Add the duration of a transaction."""
        self.count += 1
        self.total_s += took_s
        self.slowest_s = max(self.slowest_s, took_s)

    def report(self) -> Json:
        """Return the durations for daemon.health, in seconds."""
        mean_s = self.total_s / self.count if self.count else 0.0
        return {"count": self.count, "mean_s": round(mean_s, 6), "slowest_s": round(self.slowest_s, 6)}


class Writer:
    """Send work to the writer thread; call all methods on the event loop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        delay_s: float,
        on_batch: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
        on_commit: Callable[[sqlite3.Connection], None] = lambda connection: None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._delay_s = delay_s
        self._on_batch = on_batch
        self._on_fatal = on_fatal
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._pending: list[Piece] = []  # not yet sent to the thread
        self._is_sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: BaseException | None = None
        self._ended = self._loop.create_future()
        self._inbox: SimpleQueue[list[Piece] | None] = SimpleQueue()
        self.last_batch_mono = self._loop.time()
        self.times = WriteTimes()
        self._thread = threading.Thread(target=self._serve, name="registry-writer", daemon=True)
        self._thread.start()

    def send(
        self, work: Work, on_settled: Settled | None = None, *, urgent: bool = True
    ) -> asyncio.Future[Any]:
        """Do `work` in a transaction; the future gets the result when it is on disk."""
        future = self._loop.create_future()
        self._add(Piece(work, future, on_settled, is_outside=False), urgent)
        return future

    def post(self, work: Work, on_settled: Settled, *, urgent: bool = False) -> None:
        """Do `work` without a future; a closed or dead writer calls `on_settled` with the error now."""
        if self._refusal is not None:
            on_settled(None, self._refusal)
            return
        self._add(Piece(work, None, on_settled, is_outside=False), urgent)

    def send_outside(self, work: Work) -> asyncio.Future[Any]:
        """Do `work` (a checkpoint) between transactions."""
        future = self._loop.create_future()
        self._add(Piece(work, future, None, is_outside=True), urgent=True)
        return future

    def send_pending(self) -> None:
        """Send pending work now, also work that is not urgent."""
        if self._pending and not self._is_sending:
            self._is_sending = True
            self._loop.call_soon(self._send_batch)

    async def close(self) -> None:
        """Do all work that was sent, then end the thread and close the file."""
        if self._refusal is None:
            self._refusal = Unavailable("the daemon is shutting down")
            self._send_batch()
            self._inbox.put(None)
        await self._ended
        self._thread.join()

    def _add(self, piece: Piece, urgent: bool) -> None:
        if self._refusal is not None:
            raise self._refusal
        self._pending.append(piece)
        if urgent:
            self.send_pending()
        elif self._timer is None and not self._is_sending:
            self._timer = self._loop.call_later(self._delay_s, self._send_batch)

    def _send_batch(self) -> None:
        self._is_sending = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            self._inbox.put(self._pending)
            self._pending = []

    # --- on the loop, after a batch ------------------------------------------------------------

    def _finish_batch(self, batch: list[Piece]) -> None:
        """Call the callbacks of a batch that has ended, committed or failed, then `on_batch`.

        Then resolve the futures, also if a callback raises.
        """
        self.last_batch_mono = self._loop.time()
        try:
            for piece in batch:
                if piece.on_settled is not None:
                    piece.on_settled(piece.result, piece.error)
            self._on_batch()
        finally:
            for piece in batch:
                _resolve_future(piece)

    def _fail(self, error: BaseException, batch: list[Piece]) -> None:
        """Fail all work with the error that ended the thread, also work that is sent later."""
        self._refusal = error
        self._send_batch()
        left = batch + self._drain_inbox()
        for piece in left:
            piece.error = error
        try:
            self._on_fatal(error)
        finally:
            self._finish_batch(left)
            self._ended.set_result(None)

    def _drain_inbox(self) -> list[Piece]:
        left: list[Piece] = []
        while not self._inbox.empty():
            left += self._inbox.get_nowait() or []
        return left

    # --- in the thread ---------------------------------------------------------------------------

    def _serve(self) -> None:
        batch: list[Piece] = []
        try:
            while batch := self._next_batch():
                self._carry_out(batch)
                self._loop.call_soon_threadsafe(self._finish_batch, batch)
            self._connection.close()
        except BaseException as error:
            self._connection.close()
            self._loop.call_soon_threadsafe(self._fail, error, batch)
            raise
        self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _next_batch(self) -> list[Piece]:
        """Wait for work and return all that has arrived, or an empty list when the writer is closed."""
        batch = self._inbox.get()
        if batch is None:
            return []
        while len(batch) < BATCH_LIMIT:
            try:
                more = self._inbox.get_nowait()
            except Empty:
                break
            if more is None:
                self._inbox.put(None)  # for the next call
                break
            batch += more
        return batch

    def _carry_out(self, batch: list[Piece]) -> None:
        inside = [piece for piece in batch if not piece.is_outside]
        if inside:
            began = self._loop.time()
            self._commit(inside)
            self.times.add(self._loop.time() - began)
        for piece in batch:
            if piece.is_outside:
                try:
                    piece.result = piece.work(self._connection)
                except sqlite3.Error as error:
                    piece.error = self._trouble_or_raise(error)

    def _commit(self, pieces: list[Piece]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for piece in pieces:
                _do_piece(connection, piece)
            crash_points.reach("record.before_commit")
            connection.execute("COMMIT")
            self._on_commit(connection)
            crash_points.reach("record.after_commit")
        except sqlite3.Error as error:
            trouble = self._trouble_or_raise(error)
            if connection.in_transaction:  # a full disk has often rolled back already
                connection.execute("ROLLBACK")
            for piece in pieces:
                piece.result, piece.error = None, piece.error or trouble
            self._make_room()

    def _make_room(self) -> None:
        """Truncate the write-ahead log: on a full disk this may free the only available space."""
        try:
            truncate_wal(self._connection)
        except sqlite3.Error as error:
            self._trouble_or_raise(error)  # the disk is still full; the next write tries again

    def _trouble_or_raise(self, error: sqlite3.Error) -> Unavailable:
        trouble = disk_trouble(error, self._path)
        if trouble is None:
            raise error
        return trouble


def _do_piece(connection: sqlite3.Connection, piece: Piece) -> None:
    connection.execute("SAVEPOINT piece")
    try:
        piece.result = piece.work(connection)
    except _OWN_FAULTS as error:
        piece.error = error
        connection.execute("ROLLBACK TO piece")
    connection.execute("RELEASE piece")


def _resolve_future(piece: Piece) -> None:
    future = piece.future
    if future is None or future.done():  # the waiting caller was cancelled
        return
    if piece.error is not None:
        future.set_exception(piece.error)
    else:
        future.set_result(piece.result)
