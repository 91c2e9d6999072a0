"""The registry: the only writer of runs and their ledger, and the live runs in memory.

Each change is a list of events, applied to the newest row under the lock of the run, and one transaction that
writes row (only if its revision is as expected), events and slots.  After the COMMIT, and never before it,
the live runs are updated and the subscribers are called, in the order of seq.

Note: the lock of a run is released when its write is complete, also if the caller was cancelled, because the
write of a cancelled caller still happens.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.core.fsm import Event, apply, submitted
from mosaicd.core.run import Progress, Run
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import NotFound, Unavailable
from mosaicd.protocol.states import Dedup
from mosaicd.store import quarantine
from mosaicd.store.checkpoints import Checkpoints
from mosaicd.store.commit_mark import CommitMark
from mosaicd.store.event_writes import Steps, change_of, insert_run, write_change
from mosaicd.store.live_runs import LiveRuns, StoredRun
from mosaicd.store.loading import Loaded, load
from mosaicd.store.pruning import RetentionRecords
from mosaicd.store.recovering import FindMissing
from mosaicd.store.rows import progress_text
from mosaicd.store.statements import QUERIES
from mosaicd.store.submission import Admission, admit
from mosaicd.store.writer import LostUpdate, Writer

__all__ = ["Committed", "LostUpdate", "Registry"]

PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Committed:
    """An event that is on the disk, and the run after it."""

    seq: int
    run: Run
    event: Event


class Registry:
    """The open registry, made by `open`; call all methods on the event loop that opened it."""

    def __init__(
        self,
        path: Path,
        loaded: Loaded,
        clock: Clock,
        group_commit_s: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.path = path
        self.epoch = loaded.epoch
        self.last_seq = loaded.last_seq
        self.quarantine = loaded.quarantine
        self.recovery = loaded.recovery
        self._clock = clock
        self._on_fatal = on_fatal
        self._live = LiveRuns(loaded.runs)
        self.live: Mapping[str, Run] = MappingProxyType(self._live.runs)
        self.progress: Mapping[str, Progress] = MappingProxyType(self._live.progress)
        self.submit_order: Mapping[str, int] = MappingProxyType(self._live.submit_order)
        self._subscribers: list[Callable[[Sequence[Committed]], None]] = []
        self._fresh: list[Committed] = []
        self._progress_timer: asyncio.TimerHandle | None = None
        self._mark = CommitMark(path, loaded.epoch)
        self._mark.note(loaded.connection)
        self._writer = Writer(
            loaded.connection, path, delay_s=group_commit_s, on_batch=self._notify_subscribers,
            on_fatal=on_fatal, on_commit=self._mark.note,
        )  # fmt: skip
        self._checkpoints = Checkpoints(self._writer)
        self.retention = RetentionRecords(self._writer, clock, loaded.retained)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        group_commit_s: float = 0.02,
        on_fatal: Callable[[BaseException], None] | None = None,
        find_missing: FindMissing | None = None,
    ) -> "Registry":
        """Check, migrate and load the registry at `path`.

        Raises DamagedRegistry, NewerRegistry (of a later version) or Unavailable.
        `on_fatal` is called with the error if the writer or a subscriber fails: the process must then end.
        `find_missing` reads the run directories for what the registry lacks.
        """
        clock = clock or Clock()
        loaded = await asyncio.to_thread(load, path, clock.wall(), find_missing)
        return cls(path, loaded, clock, group_commit_s, on_fatal or _log_fatal)

    def subscribe(self, callback: Callable[[Sequence[Committed]], None]) -> None:
        """Call `callback` on the loop after every commit that has events, in the order of seq."""
        self._subscribers.append(callback)

    # --- changes -------------------------------------------------------------------------------

    async def add(self, event: Event, *, dedup: Dedup, key: str | None = None) -> tuple[Run, bool]:
        """Store a `submitted` run, or find the run that it duplicates; return (run, is_duplicate).

        Raises Conflict and changes nothing if another run has the id or key, or if `dedup` says fail.
        """
        run = submitted(event)
        if run.key != key:
            event = replace(event, data={**event.data, "run": {**event.data["run"], "key": key}})
            run = submitted(event)
        found: Admission = await self._writer.send(
            partial(admit, run, event, dedup), partial(self._admitted, event)
        )
        return self.live.get(found.run.run_id, found.run), found.is_duplicate

    async def record(self, run_id: str, *events: Event, urgent: bool = True) -> Run:
        """Record `events` of a live run and return the run after them.

        Raises IllegalTransition or NotFound, and changes nothing then.  Events that are not urgent wait for
        the next commit, at most the group commit time.
        """
        return await self.record_if(run_id, lambda run: events, urgent=urgent)

    async def record_if(
        self, run_id: str, decide: Callable[[Run], Sequence[Event]], *, urgent: bool = True
    ) -> Run:
        """Record the events that `decide` returns for the newest row, under the lock of the run."""
        lock = self._live.locks.get(run_id)
        if lock is None:
            raise NotFound(f"there is no live run {run_id}", run_id=run_id)
        if urgent and lock.locked():
            self._writer.send_pending()  # the write that holds the lock may be waiting for the next commit
        await lock.acquire()
        try:
            run = self.live.get(run_id)
            if run is None:
                raise NotFound(f"there is no live run {run_id}", run_id=run_id)
            steps: list[tuple[Run, Event]] = []
            for event in decide(run):
                steps.append((apply(steps[-1][0] if steps else run, event), event))
            future = self._send(run, steps, lock, urgent) if steps else None
        except BaseException:
            lock.release()
            raise
        if future is None:
            lock.release()
            return run
        await future
        return steps[-1][0]

    async def add_history(self, steps: Steps, progress: Progress) -> bool:
        """Store an imported run that has ended, with all its events; return False if its id was used."""
        run = steps[-1][0]
        if not run.is_final:
            raise ValueError(f"run {run.run_id} has not ended")

        def work(connection: sqlite3.Connection) -> Sequence[int] | None:
            for query in ("get_run", "pruned_run"):
                if connection.execute(QUERIES[query], (run.run_id,)).fetchone() is not None:
                    return None
            return insert_run(connection, steps, progress).seqs

        def add_if_committed(seqs: Sequence[int] | None, error: BaseException | None) -> None:
            if seqs is not None and error is None:
                self._add_fresh(seqs, steps)

        return await self._writer.send(work, add_if_committed) is not None

    def advance(self, run_id: str, progress: Progress) -> None:
        """Set the last values of a live run; written with its next event, or within about a second."""
        if run_id not in self.live:
            return
        self._live.advance(run_id, progress)
        if self._progress_timer is None:
            loop = asyncio.get_running_loop()
            self._progress_timer = loop.call_later(PROGRESS_INTERVAL_S, self._write_progress)

    def quarantine_ended(self, run_id: str, why: str) -> None:
        """Quarantine an ended run whose row cannot be read."""
        at = self._clock.wall()

        def work(connection: sqlite3.Connection) -> int | None:
            found: tuple[int] | None = connection.execute(QUERIES["ended_run"], (run_id,)).fetchone()
            if found is None:
                return None
            quarantine.quarantine_row(connection, found[0], why, at)
            return found[0]

        def note_quarantined(n: int | None, error: BaseException | None) -> None:
            if n is not None and error is None:
                entry = {"run_id": run_id, "why": why, "at": at, "is_live": False, "slots": [], "cpus": 0}
                self.quarantine.append(entry)
                log.event(Catalogue.ROW_QUARANTINED, run_id=run_id, why=why)

        self._writer.post(work, note_quarantined)

    # --- the file ------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when everything sent so far is on the disk, or was refused by it.

        A full disk does not make this fail: the watchdog checks that the writer works, not the disk.
        """
        self._write_progress()
        await self._writer.send_outside(lambda connection: None)

    async def checkpoint(self) -> tuple[int, int, int]:
        """Move the WAL into the database and truncate it; return (busy, log, checkpointed) of SQLite."""
        return await self._checkpoints.take()

    def last_batch_mono(self) -> float:
        """Return the loop's time (monotonic) of the writer's last batch; `flush` makes a batch."""
        return self._writer.last_batch_mono

    def write_times(self) -> dict[str, Any]:
        """Return the number of transactions since the start, and their durations in seconds."""
        return self._writer.times.report()

    async def close(self) -> None:
        """Write everything that is pending, then close the file; later calls raise Unavailable."""
        self._write_progress()
        if self._progress_timer is not None:
            self._progress_timer.cancel()
        await self._writer.close()
        self._mark.close()

    # --- inside ------------------------------------------------------------------------------------

    def _send(self, run: Run, steps: Steps, lock: asyncio.Lock, urgent: bool) -> asyncio.Future[Any]:
        progress = self._live.progress_after(steps)
        change = change_of(run, steps, progress)
        self._live.mark_written(run.run_id)
        return self._writer.send(
            partial(write_change, change=change),
            partial(self._recorded, steps, lock, progress),
            urgent=urgent,
        )

    def _recorded(
        self,
        steps: Steps,
        lock: asyncio.Lock,
        progress: Progress | None,
        seqs: Sequence[int] | None,
        error: BaseException | None,
    ) -> None:
        if seqs is not None and error is None:
            self._live.committed(steps, progress)
            self._add_fresh(seqs, steps)
        elif progress is not None:
            self._live.mark_unwritten([steps[-1][0].run_id])
        lock.release()

    def _admitted(self, event: Event, found: Admission | None, error: BaseException | None) -> None:
        if found is not None and error is None and not found.is_duplicate:
            crash_points.reach("submit.after_commit")
            self._live.enter(StoredRun(found.run, Progress(), found.submit_order))
            self._add_fresh([found.seq], [(found.run, event)])

    def _add_fresh(self, seqs: Sequence[int], steps: Steps) -> None:
        self._fresh += [Committed(seq, run, event) for seq, (run, event) in zip(seqs, steps, strict=True)]

    def _notify_subscribers(self) -> None:
        """Call the subscribers with the committed events, before the progress of ended runs is dropped."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        self.last_seq = fresh[-1].seq
        for callback in self._subscribers:
            try:
                callback(fresh)
            except BaseException as error:  # noqa: BLE001 - a subscriber without the event is fatal
                self._on_fatal(error)
        for committed in fresh:
            if committed.run.is_final:
                self._live.forget(committed.run.run_id)

    def _write_progress(self) -> None:
        self._progress_timer = None
        taken = self._live.take_unwritten()
        if not taken:
            return
        values = [(progress_text(progress), run_id) for run_id, progress in taken.items()]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(QUERIES["update_progress"], values)

        def keep_unwritten(_: object, error: BaseException | None) -> None:
            if isinstance(error, Unavailable):  # the newest values go with the next advance or event
                self._live.mark_unwritten(taken)

        self._writer.post(work, keep_unwritten)


def _log_fatal(error: BaseException) -> None:
    log.event(Catalogue.FATAL_ERROR, error=error, why=repr(error))
