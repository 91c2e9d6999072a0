"""The end of a run's tree: asks until the launcher finds it empty, and sees to it that somebody ends it.

A shim that lives ends its own tree; where there is none, a teardown shim does.  What a reader would get
wrong: neither is trusted to get there.  One that has had its time, and whose tree is still there, is given
up: another ends it first, and then the tree.  What is still there after its grace and more (no signal reaches
a process that waits in the kernel) is called unkillable, and whoever can is to go on trying.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core import fsm, missed_events
from mosaicd.core.deadlines import grace_s, retry_delay_s
from mosaicd.core.fsm import Action, Event, Kind
from mosaicd.core.launch import LaunchFailed
from mosaicd.core.run import Run
from mosaicd.dispatch.orders import Orders
from mosaicd.log import Catalogue
from mosaicd.protocol.backoff import Backoff, delay_s

if TYPE_CHECKING:
    from mosaicd.shims.launcher_client import LauncherClient
    from mosaicd.shims.shims import Shims

#: The longest wait between two looks at a tree that is not empty, where nothing tells of a change.
MOST_RECHECK_S = 5.0
#: How long a shim that is heard of, or the last of many, has to end a tree that has less grace than this.
MOST_PATIENCE_S = 600.0

Follow = Callable[[Run, Action, Callable[[Run], Event]], Awaitable[None]]


@dataclass(slots=True)
class _Unempty:
    """A tree that is still there: since when, how long until the next look, and its timer.

    `shims`: how many were given up over it, the last at `given_up_mono`.
    """

    since_mono: float
    backoff: Backoff
    given_up_mono: float
    shims: int = 0
    timer: asyncio.TimerHandle | None = None


class TreeTeardown:
    """`follow` records what an action leads to, `tell_stop` tells a living shim, `later` calls at a time."""

    def __init__(
        self, launcher: "LauncherClient", shims: "Shims", orders: Orders, settings: Settings, clock: Clock,
        follow: Follow, tell_stop: Callable[[Run], None],
        look_later: Callable[[str, float], asyncio.TimerHandle],
    ) -> None:  # fmt: skip
        self._launcher = launcher
        self._shims = shims
        self._orders = orders
        self._settings = settings
        self._clock = clock
        self._follow = follow
        self._tell_stop = tell_stop
        self._look_later = look_later
        self._unempty: dict[str, _Unempty] = {}

    def forget(self, run_id: str) -> None:
        """Drop what is known of the tree of a run that ended."""
        self._unempty.pop(run_id, None)

    async def look(self, run: Run) -> None:
        """Conclude where nothing is left; else have it ended, and look again later."""
        run = missed_events.of_this_boot(run, self._clock.boot_id())
        alive = self._shims.is_alive(run.run_id, run.attempt)
        if run.exit is None and alive and run.run_id not in self._unempty:
            self._tell_stop(run)  # its exit, or its end, comes back as a fact
        shim = (run.shim_pid, run.shim_start_ticks)
        empty, pids = await self._launcher.check_tree(run.run_id, shim, run.attempt)
        if empty and alive and run.exit is None:
            pids = [pid for pid in (run.shim_pid,) if pid is not None]  # it may still start its worker
        elif empty and self._shims.given_up(run.run_id) is None:
            self._unempty.pop(run.run_id, None)
            crash_points.reach("exit.before_conclude")
            await self._follow(run, Action.EMPTY_TREE, self._conclusion)
            return
        if not alive:
            try:
                await self._shims.teardown(self._orders.teardown(run, self._shims.given_up(run.run_id)))
            except LaunchFailed as error:
                log.event(Catalogue.TEARDOWN_FAILED, run_id=run.run_id, why=error)
        await self._still_there(run, pids, is_shim_alive=alive)

    def _conclusion(self, run: Run) -> Event:
        retries = self._settings.retries
        wait_s = retry_delay_s(run.retries_used, retries.backoff_s, retries.backoff_max_s, random.random())
        bound = fsm.CrashLoop(retries.crash_loop_attempts, retries.crash_loop_s)
        return fsm.conclude(run, self._clock.wall(), wait_s, bound)

    async def _still_there(self, run: Run, pids: list[int], *, is_shim_alive: bool) -> None:
        """Look again later; after too long say so, and give up the shim that should have ended it."""
        now, timeouts = self._clock.mono(), self._settings.timeouts
        tree = self._unempty.get(run.run_id)
        if tree is None:
            first_s = timeouts.empty_retry_s
            tree = _Unempty(now, Backoff(first_s, max(first_s, MOST_RECHECK_S)), now)
            self._unempty[run.run_id] = tree
        bound_s = grace_s(run) + timeouts.unkillable_s
        if now - tree.since_mono > bound_s and not run.unkillable:
            event = Event(Kind.UNKILLABLE, self._clock.wall(), data={"pids": pids[:20]})
            await self._follow(run, Action.EMPTY_TREE, lambda now: event)
        if is_shim_alive and now - tree.given_up_mono > self._patience_s(run, tree, bound_s):
            log.event(Catalogue.SHIM_STUCK, run_id=run.run_id)
            self._shims.give_up(run.run_id)
            tree.shims += 1
            tree.given_up_mono = now
            tree.backoff.reset()
        if tree.timer is not None:
            tree.timer.cancel()  # looked at for another reason: one timer a run is enough
        tree.timer = self._look_later(run.run_id, tree.backoff.next_s())

    def _patience_s(self, run: Run, tree: _Unempty, bound_s: float) -> float:
        """Return how long the shim there is has: one that is heard of does what can be done.

        Never less than the grace that it gives the tree: its successor would begin it anew, and so for ever.
        """
        least_s = bound_s + self._settings.timeouts.post_mortem_s
        most_s = max(MOST_PATIENCE_S, least_s)
        if self._shims.is_attached(run.run_id, run.attempt):
            return most_s  # one that has fallen silent is found by its silence
        return delay_s(tree.shims, least_s, most_s)
