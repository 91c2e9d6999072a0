"""The registry: the only writer of runs and their ledger, and the mirror of live runs that all decide by.

Every change is a list of events folded from the mirror under the run's lock, and one transaction: row
(compare-and-set on the revision), events, slots.  The mirror and the subscribers move after COMMIT, in seq
order; before it nobody has seen anything.

A reader would get wrong: the lock of a run is given back when its write has settled, not when the caller goes
away, because a cancelled caller's write still happens.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mosaicd import crash_points
from mosaicd.clock import Clock
from mosaicd.core.fsm import Event, Kind, apply, submitted
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import NotFound, Unavailable
from mosaicd.protocol.states import Dedup
from mosaicd.store import pruning, quarantine, rebuilding
from mosaicd.store.adopting import Look
from mosaicd.store.commit_mark import HighWater
from mosaicd.store.database import truncate_wal
from mosaicd.store.loading import Loaded, load
from mosaicd.store.rows import event_values, progress_text, run_values
from mosaicd.store.statements import QUERIES
from mosaicd.store.submission import Found, admit
from mosaicd.store.writer import LostUpdate, Writer

__all__ = ["Committed", "LostUpdate", "Registry"]

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0
BUSY_ROUNDS = 3
#: A WAL of this size (8 MiB) that cannot be truncated is worth a word also where it gets on.
MANY_PAGES = 2048
#: Events that bring last values of their own.
_RECOUNTED = (Kind.DISPATCHED, Kind.EXITED)


@dataclass(frozen=True, slots=True)
class Committed:
    """An event that is on disk, and the run after it."""

    seq: int
    run: Run
    event: Event


class Registry:
    """Made by `open`; everything belongs to the event loop it was opened on."""

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
        self.pins = loaded.pins
        self.damage = loaded.damage
        self.adopted, self.is_news = loaded.adopted, loaded.is_news
        self.recollected = loaded.recollected
        self.pruned_seq = loaded.pruned_seq
        self.pruned_left = set(loaded.pruned_left)
        self.progress: dict[str, Progress] = {}
        self._clock = clock
        self._on_fatal = on_fatal
        self._live: dict[str, Run] = {}
        self.live: Mapping[str, Run] = MappingProxyType(self._live)
        self._locks: dict[str, asyncio.Lock] = {}
        self._subscribers: list[Callable[[Sequence[Committed]], None]] = []
        self._fresh: list[Committed] = []
        self._dirty: set[str] = set()
        self._progress_timer: asyncio.TimerHandle | None = None
        self._busy_rounds, self._checkpointed = 0, -1
        for run, progress in loaded.runs:
            self._enter(run, progress)
        self._mark = HighWater(path, loaded.epoch)
        self._mark.note(loaded.connection)
        self._writer = Writer(
            loaded.connection, path, delay_s=group_commit_s, on_batch=self._tell, on_fatal=on_fatal,
            on_commit=self._mark.note,
        )  # fmt: skip

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        group_commit_s: float = 0.02,
        on_fatal: Callable[[BaseException], None] | None = None,
        look: Look | None = None,
    ) -> "Registry":
        """Check, migrate and load the registry at `path`; DamagedRegistry, NewerRegistry or Unavailable.

        `on_fatal` is called once if the writer dies of something unforeseen: the process should then end.
        `look` finds what run directories know and the registry lacks.
        """
        clock = clock or Clock()
        loaded = await asyncio.to_thread(load, path, clock.wall(), look)
        return cls(path, loaded, clock, group_commit_s, on_fatal or _say_fatal)

    def subscribe(self, callback: Callable[[Sequence[Committed]], None]) -> None:
        """Have `callback` called on the loop after every commit that holds events, in seq order."""
        self._subscribers.append(callback)

    # --- changes -------------------------------------------------------------------------------

    async def add(self, event: Event, *, dedup: Dedup, key: str | None = None) -> tuple[Run, bool]:
        """Store a `submitted` run, or find the one that it duplicates; return (run, duplicate).

        Conflict, and nothing changed, when id or key is another's or `dedup` says fail.
        """
        run = submitted(event)
        if run.key != key:
            event = replace(event, data={**event.data, "run": {**event.data["run"], "key": key}})
            run = submitted(event)
        work = partial(admit, run, run_values(run), event_values(run, event), dedup)
        found: Found = await self._writer.send(work, partial(self._admitted, event))
        return self._live.get(found.run.run_id, found.run), found.is_duplicate

    async def record(self, run_id: str, *events: Event, urgent: bool = True) -> Run:
        """Fold `events` into a live run and return it; IllegalTransition or NotFound, and nothing changed.

        Not urgent: may wait for the next commit, at most the group commit time.
        """
        return await self.record_if(run_id, lambda run: events, urgent=urgent)

    async def record_if(
        self, run_id: str, decide: Callable[[Run], Sequence[Event]], *, urgent: bool = True
    ) -> Run:
        """Fold the events that `decide` derives from the newest row, which nobody else changes meanwhile."""
        lock = self._locks.get(run_id)
        if lock is None:
            raise NotFound(f"there is no live run {run_id}", run_id=run_id)
        if urgent and lock.locked():
            self._writer.hurry()  # what we wait for may wait for company
        await lock.acquire()
        try:
            run = self._live.get(run_id)
            if run is None:
                raise NotFound(f"there is no live run {run_id}", run_id=run_id)
            future = self._send(run, decide(run), lock, urgent)
        except BaseException:
            lock.release()
            raise
        if future is None:
            lock.release()
            return run
        written: tuple[Run, list[int]] = await future
        return written[0]

    async def add_history(self, steps: rebuilding.Steps, progress: Progress) -> bool:
        """Store an ended run, made elsewhere, with all of its events; False when its id is or was taken."""
        run = steps[-1][0]
        if not run.is_final:
            raise ValueError(f"run {run.run_id} has not ended")

        def work(connection: sqlite3.Connection) -> list[int] | None:
            for query in ("get_run", "pruned_run"):
                if connection.execute(QUERIES[query], (run.run_id,)).fetchone() is not None:
                    return None
            return rebuilding.insert(connection, steps, progress)

        def settled(seqs: list[int] | None, error: BaseException | None) -> None:
            if seqs is not None and error is None:
                told = zip(seqs, steps, strict=True)
                self._fresh += [Committed(seq, after, event) for seq, (after, event) in told]

        return await self._writer.send(work, settled) is not None

    def advance(self, run_id: str, progress: Progress) -> None:
        """Take over last values of a live run; written with its next event, or within about a second."""
        if run_id not in self._live:
            return
        self.progress[run_id] = progress
        self._dirty.add(run_id)
        if self._progress_timer is None:
            loop = asyncio.get_running_loop()
            self._progress_timer = loop.call_later(PROGRESS_INTERVAL_S, self._write_progress)

    def set_aside(self, run_id: str, why: str) -> None:
        """Move the row of an ended run that cannot be read into quarantine (a reader found it)."""
        at = self._clock.wall()

        def work(connection: sqlite3.Connection) -> int | None:
            found: tuple[int] | None = connection.execute(QUERIES["ended_run"], (run_id,)).fetchone()
            if found is None:
                return None
            quarantine.set_aside(connection, found[0], why, at)
            return found[0]

        def settled(n: int | None, error: BaseException | None) -> None:
            if n is not None and error is None:
                entry = {"run_id": run_id, "why": why, "at": at, "is_live": False, "slots": [], "cpus": 0}
                self.quarantine.append(entry)
                logger.error("run %s was set aside: %s", run_id, why)

        self._writer.post(work, settled)

    # --- what is kept ----------------------------------------------------------------------------

    async def pin(self, run_id: str, who: str, *, pinned: bool = True) -> None:
        """Have retention leave a run, live or ended, alone (or no longer); NotFound when it is gone."""
        await self._writer.send(partial(pruning.pin, run_id, who, self._clock.wall(), pinned))
        (self.pins.add if pinned else self.pins.discard)(run_id)

    async def prune(self, sizes: Mapping[str, int], who: str) -> list[str]:
        """Take row and events of ended runs away, one transaction; return which: live and pinned ones stay.

        `sizes` are bytes by run id.  What is returned is in `pruned_left` until `pruned` is called.
        """
        work = partial(pruning.prune, sizes, who, self._clock.wall())
        taken: list[str]
        taken, seq = await self._writer.send(work)
        self.pruned_left.update(taken)
        self.pruned_seq = max(self.pruned_seq, seq)
        return taken

    async def pruned(self, run_ids: Sequence[str]) -> None:
        """Take note that the directories of pruned runs are gone."""
        values = [(run_id,) for run_id in run_ids]
        await self._writer.send(lambda connection: connection.executemany(QUERIES["prune_done"], values))
        self.pruned_left.difference_update(run_ids)

    # --- care ------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when everything sent so far is on disk, or was refused by it, and the writer has turned.

        A full disk does not make this fail: the watchdog asks whether the writer lives, not the disk.
        """
        self._write_progress()
        await self._writer.send_outside(lambda connection: None)

    async def checkpoint(self) -> tuple[int, int, int]:
        """Move the WAL into the database and truncate it; return (busy, log, checkpointed) of SQLite."""
        found: tuple[int, int, int] = await self._writer.send_outside(truncate_wal)
        got_on = found[2] != self._checkpointed or found[1] == found[2]  # readers come and go
        is_stuck = found[0] and (not got_on or found[1] > MANY_PAGES)
        self._busy_rounds, self._checkpointed = self._busy_rounds + 1 if is_stuck else found[0], found[2]
        if self._busy_rounds >= BUSY_ROUNDS:
            logger.warning(
                "the registry's WAL was not truncated %d times in a row: a reader holds it; it has %d pages",
                self._busy_rounds,
                found[1],
            )
        return found

    def healthy(self) -> float:
        """Return the loop's time (monotonic) of the writer's last completed turn; `flush` makes one."""
        return self._writer.turned_mono

    def write_times(self) -> dict[str, Any]:
        """Return how many transactions there were since the start, and how long they took (seconds)."""
        return self._writer.times.report()

    async def close(self) -> None:
        """Write what is left and close the file; later calls raise Unavailable."""
        self._write_progress()
        if self._progress_timer is not None:
            self._progress_timer.cancel()
        await self._writer.close()
        self._mark.close()

    # --- inside ------------------------------------------------------------------------------------

    def _enter(self, run: Run, progress: Progress) -> None:
        self._live[run.run_id] = run
        self.progress[run.run_id] = progress
        self._locks[run.run_id] = asyncio.Lock()

    def _send(
        self, run: Run, events: Sequence[Event], lock: asyncio.Lock, urgent: bool
    ) -> asyncio.Future[Any] | None:
        after, steps = run, []
        for event in events:
            after = apply(after, event)
            steps.append((after, event))
        if not steps:
            return None
        progress = self._progress_after(run, steps)
        values = run_values(after)
        values["was"] = run.rev
        values["progress"] = progress and progress_text(progress)
        work = partial(
            _write_events, values, [event_values(*step) for step in steps],
            after.slots if after.slots != run.slots else None, after,
        )  # fmt: skip
        self._dirty.discard(run.run_id)
        return self._writer.send(work, partial(self._recorded, steps, lock, progress), urgent=urgent)

    def _progress_after(self, run: Run, steps: Sequence[tuple[Run, Event]]) -> Progress | None:
        """Last values to store with the row: a new attempt counts from zero, an exit has the final count."""
        known = progress = self.progress[run.run_id]
        for _, event in steps:
            if event.kind is Kind.DISPATCHED:
                progress = replace(
                    progress, telemetry_seq=0, stdout_bytes=0, stderr_bytes=0, steps_per_s=None,
                    resumed_from=None,
                )  # fmt: skip
            elif event.kind is Kind.EXITED:
                progress = progress.after_exit(event.data)
        return progress if progress is not known or run.run_id in self._dirty else None

    def _recorded(
        self,
        steps: Sequence[tuple[Run, Event]],
        lock: asyncio.Lock,
        progress: Progress | None,
        result: tuple[Run, list[int]] | None,
        error: BaseException | None,
    ) -> None:
        run_id = steps[-1][0].run_id
        if result is not None and error is None:
            after, seqs = result
            self._live[run_id] = after
            if progress is not None and any(event.kind in _RECOUNTED for _, event in steps):
                self.progress[run_id] = progress
            self._fresh += [Committed(seq, run, event) for seq, (run, event) in zip(seqs, steps, strict=True)]
            if after.is_final:
                del self._live[run_id], self._locks[run_id]
        elif progress is not None:
            self._dirty.add(run_id)
        lock.release()

    def _admitted(self, event: Event, found: Found | None, error: BaseException | None) -> None:
        if found is not None and error is None and not found.is_duplicate:
            crash_points.reach("submit.after_commit")
            self._enter(found.run, Progress())
            self._fresh.append(Committed(found.seq, found.run, event))

    def _tell(self) -> None:
        """Tell the subscribers what was committed, while the progress of runs that ended is still there."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        self.last_seq = fresh[-1].seq
        for callback in self._subscribers:
            try:
                callback(fresh)
            except BaseException as error:  # noqa: BLE001 - a commit that is half told is fatal, not silent
                self._on_fatal(error)
        for committed in fresh:
            if committed.run.is_final:
                self.progress.pop(committed.run.run_id, None)
                self._dirty.discard(committed.run.run_id)

    def _write_progress(self) -> None:
        self._progress_timer = None
        if not self._dirty:
            return
        written, self._dirty = self._dirty, set()
        values = [(progress_text(self.progress[run_id]), run_id) for run_id in written]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(QUERIES["update_progress"], values)

        def settled(_: object, error: BaseException | None) -> None:
            if isinstance(error, Unavailable):  # the newest values go with the next advance or event
                self._dirty |= written & self._live.keys()

        self._writer.post(work, settled)


def _write_events(
    values: Mapping[str, Any],
    events: Sequence[tuple[Any, ...]],
    slots: tuple[int, ...] | None,
    after: Run,
    connection: sqlite3.Connection,
) -> tuple[Run, list[int]]:
    if slots is not None:
        connection.execute(QUERIES["give_back_slots"], (after.run_id,))
    if connection.execute(QUERIES["update_run"], values).rowcount != 1:
        raise LostUpdate(f"run {after.run_id} is no longer at revision {values['was']}")
    seqs = [connection.execute(QUERIES["insert_event"], event).lastrowid or 0 for event in events]
    for slot in slots or ():
        connection.execute(QUERIES["take_slot"], (slot, after.run_id))
    return after, seqs


def _say_fatal(error: BaseException) -> None:
    logger.critical("the registry's writer has ended: %s", error)
