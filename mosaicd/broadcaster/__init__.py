"""Subscriptions to the ledger: replay from a cursor, then live, in exact order, also for slow watchers.

Nothing is queued for a watcher.  Each watcher has a cursor and reads events: from the recent events in memory
if its cursor is within them, else from the ledger in pages.  So the cost of a slow watcher does not grow.  A
live watcher that lags behind more than the limit gets a gap record and continues after it.  A replaying
watcher gets no gap, because it loses nothing by being slow.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mosaicd import log
from mosaicd.broadcaster import notices
from mosaicd.broadcaster.recent import Recent
from mosaicd.config.settings import Watch as Settings
from mosaicd.log import Catalogue
from mosaicd.protocol.states import State
from mosaicd.store.history import History
from mosaicd.store.registry import Committed, Registry

#: Events in one write, and in one page read from the ledger.
PAGE_EVENTS = 128
#: The number of owners of ended runs that are cached, for watchers that may see only their own runs.
OWNERS = 4096

Write = Callable[[bytes], Awaitable[None]]


@dataclass(eq=False)
class Watch:
    """One subscription: `cursor` is the seq of the last event that was sent or skipped."""

    subscription: int
    cursor: int
    uid: int
    run_id: str | None = None
    owner_uid: int | None = None
    wants_progress: bool = False
    is_live: bool = False
    is_lagging: bool = False
    moved: set[str] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def shows(self, run_id: str, owner_uid: int) -> bool:
        """Return whether the watcher asked for the run and may see it."""
        return self.run_id in (None, run_id) and self.owner_uid in (None, owner_uid)


class Changes:
    """The signal that one run has changed; see `Broadcaster.changed`."""

    def __init__(self) -> None:
        self.states: set[State] = set()
        self._has_changed = asyncio.Event()

    def notify(self) -> None:
        """Wake the waiting task."""
        self._has_changed.set()

    async def wait(self) -> None:
        """Wait until the run has a commit or an advance after the last return of `wait`."""
        await self._has_changed.wait()
        self._has_changed.clear()


class Broadcaster:
    """Sends events to watchers, and wakes tasks that follow one run."""

    def __init__(self, registry: Registry, history: History, settings: Settings) -> None:
        self._registry = registry
        self._history = history
        self._limit = settings.lag_events
        self._progress_interval_s = settings.progress_interval_s
        self._recent = Recent(2 * self._limit + PAGE_EVENTS, registry.last_seq)
        self._watches: set[Watch] = set()
        self._followers: dict[str, set[Changes]] = {}
        self._owners: dict[str, int] = {}
        registry.subscribe(self._follow_commits)

    @property
    def epoch(self) -> str:
        """The id of the ledger; cursors of another epoch are invalid."""
        return self._registry.epoch

    @property
    def last_seq(self) -> int:
        """The seq of the newest event that watchers may receive."""
        return self._recent.last_seq

    @property
    def watchers(self) -> int:
        """The number of active watches."""
        return len(self._watches)

    # --- commits and advances ------------------------------------------------------------------------------

    def _follow_commits(self, batch: Sequence[Committed]) -> None:
        """Keep the events of a batch, and wake watchers and followers."""
        self._recent.extend(batch)
        for watch in self._watches:
            watch.wake.set()
        if self._followers:
            for commit in batch:
                for changes in self._followers.get(commit.run.run_id, ()):
                    changes.states.add(commit.run.state)
                    changes.notify()

    def advanced(self, run_id: str) -> None:
        """Note that the last values of a live run have changed."""
        for changes in self._followers.get(run_id, ()):
            changes.notify()
        run = self._registry.live.get(run_id)
        if run is None:
            return
        for watch in self._watches:
            if watch.wants_progress and watch.shows(run_id, run.owner_uid):
                watch.moved.add(run_id)
                watch.wake.set()

    @contextmanager
    def changed(self, run_id: str) -> Iterator[Changes]:
        """Yield the signal of every commit and advance of the run from now on."""
        changes = Changes()
        self._followers.setdefault(run_id, set()).add(changes)
        try:
            yield changes
        finally:
            others = self._followers[run_id]
            others.discard(changes)
            if not others:
                del self._followers[run_id]

    # --- feeding a watcher -----------------------------------------------------------------------------

    async def feed(self, watch: Watch, write: Write) -> None:
        """Write the notifications of the watcher as lines until cancelled, or until `write` raises."""
        self._watches.add(watch)
        loop = asyncio.get_running_loop()
        progress_due = loop.time()
        try:
            while True:
                watch.wake.clear()
                await self._catch_up(watch, write)
                wait_s = None
                if watch.moved:
                    wait_s = progress_due - loop.time()
                    if wait_s <= 0:
                        await self._send_progress(watch, write)
                        progress_due = loop.time() + self._progress_interval_s
                        continue
                try:
                    async with asyncio.timeout(wait_s):
                        await watch.wake.wait()
                except TimeoutError:
                    pass
        finally:
            self._watches.discard(watch)

    async def _catch_up(self, watch: Watch, write: Write) -> None:
        """Send all events after the cursor of the watcher, or a gap record if a live watcher lags too far."""
        while watch.cursor < self.last_seq:
            behind = self.last_seq - watch.cursor
            if watch.is_live and behind > self._limit:
                await self._leave_gap(watch, write)
            elif watch.cursor < self._recent.floor:
                await self._replay(watch, write)
            else:
                await self._send_recent(watch, write)
        watch.is_live, watch.is_lagging = True, False

    async def _send_recent(self, watch: Watch, write: Write) -> None:
        page = self._recent.after(watch.cursor, PAGE_EVENTS)
        lines = [
            notices.event_line(watch.subscription, event.body())
            for event in page
            if watch.shows(event.run_id, event.owner_uid)
        ]
        watch.cursor = page[-1].seq
        if lines:
            await write(b"".join(lines))

    async def _replay(self, watch: Watch, write: Write) -> None:
        """Send one page of the ledger."""
        newest = self.last_seq
        page = await self._history.events(watch.cursor, PAGE_EVENTS, watch.run_id)
        lines = [
            notices.event_line(watch.subscription, notices.stored_body(event))
            for event in page
            if watch.owner_uid is None or await self._owner_of(event.run_id) == watch.owner_uid
        ]
        # An incomplete page reached the end of the ledger at the time of the query.
        watch.cursor = page[-1].seq if len(page) == PAGE_EVENTS else max(newest, page[-1].seq if page else 0)
        if lines:
            await write(b"".join(lines))

    async def _leave_gap(self, watch: Watch, write: Write) -> None:
        first, last = watch.cursor + 1, self.last_seq - self._limit // 2
        if not watch.is_lagging:
            watch.is_lagging = True  # one warning until the watcher has caught up
            log.event(
                Catalogue.WATCHER_LAGS, subscription=watch.subscription, uid=watch.uid,
                run_id=watch.run_id, cursor=watch.cursor, first=first, last=last,
            )  # fmt: skip
        watch.cursor = last
        await write(notices.gap_line(watch.subscription, first, last))

    async def _send_progress(self, watch: Watch, write: Write) -> None:
        moved, watch.moved = watch.moved, set()
        lines = [
            notices.progress_line(watch.subscription, run, self._registry.progress[run_id])
            for run_id in moved
            if (run := self._registry.live.get(run_id)) is not None and run_id in self._registry.progress
        ]
        if lines:
            await write(b"".join(lines))

    async def _owner_of(self, run_id: str) -> int | None:
        """Return the uid of a run's owner; None if the run was pruned."""
        live = self._registry.live.get(run_id)
        if live is not None:
            return live.owner_uid
        if run_id not in self._owners:
            found = await self._history.get(run_id)
            if found is None:
                return None
            if len(self._owners) >= OWNERS:
                self._owners.clear()
            self._owners[run_id] = found[0].owner_uid
        return self._owners[run_id]
