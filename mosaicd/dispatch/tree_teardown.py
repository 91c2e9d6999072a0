"""The end of a run's process tree: ask the launcher until the tree is empty, and tear it down if necessary.

A living shim ends its own tree; after its death a teardown shim does.

Note: both may fail.  A shim whose tree is not empty in time is given up; the next teardown shim ends it, and
then the tree.  A tree that is not empty after its grace period and `unkillable_s` is reported as unkillable
(no signal reaches a process that waits in the kernel), and its teardown is repeated.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core import fsm, missed_events
from mosaicd.core.deadlines import grace_s, retry_delay_s
from mosaicd.core.fsm import Action, Event, Kind
from mosaicd.core.launch import LaunchFailed
from mosaicd.core.run import Run
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.dispatch.recorder import Recorder
from mosaicd.dispatch.shim_control import ShimControl
from mosaicd.log import Catalogue
from mosaicd.protocol.backoff import Backoff, delay_s
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.shims.shims import Shims

#: The longest wait between two checks of a tree that is not empty.
MOST_RECHECK_S = 5.0
#: The longest time for one shim to end its tree, unless the grace period is longer.
MOST_PATIENCE_S = 600.0


@dataclass(slots=True)
class _Tree:
    """A tree that is not empty: since when, the back-off of its checks, and the timer of the next one.

    `shims` counts the shims that were given up because of it, the last at `given_up_mono`.
    """

    since_mono: float
    backoff: Backoff
    given_up_mono: float
    shims: int = 0
    timer: asyncio.TimerHandle | None = None


class TreeTeardown:
    """Have shims end process trees, and conclude a run whose tree is empty; sends no signal itself.

    `check_later(run_id, delay_s)` has the dispatcher call `conclude_or_tear_down` again for the run, unless
    the run is no longer owed it.
    """

    def __init__(
        self, launcher: LauncherClient, shims: Shims, order_builder: OrderBuilder, settings: Settings,
        clock: Clock, recorder: Recorder, control: ShimControl,
        check_later: Callable[[str, float], asyncio.TimerHandle],
    ) -> None:  # fmt: skip
        self._launcher = launcher
        self._shims = shims
        self._order_builder = order_builder
        self._settings = settings
        self._clock = clock
        self._recorder = recorder
        self._control = control
        self._check_later = check_later
        self._trees: dict[str, _Tree] = {}
        #: The stops that were sent for runs whose worker has exited.
        self._sent_stops: dict[str, Mapping[str, Any]] = {}

    def forget(self, run_id: str) -> None:
        """Drop the tree of a run that has ended."""
        self._trees.pop(run_id, None)
        self._sent_stops.pop(run_id, None)

    async def conclude_or_tear_down(self, run: Run) -> None:
        """Conclude the run if its tree is empty; otherwise have a shim end the tree and check again."""
        run = missed_events.of_this_boot(run, self._clock.boot_id())
        alive = self._shims.is_alive(run.run_id, run.attempt)
        if run.exit is None and alive and run.run_id not in self._trees:
            self._control.send_stop(run)  # the shim then reports the exit as a fact, or ends
        elif run.exit is not None and alive and run.stop and self._sent_stops.get(run.run_id) != run.stop:
            self._sent_stops[run.run_id] = run.stop
            self._control.send_stop(run)  # it may shorten the grace period of the processes that remain
        shim = (run.shim_pid, run.shim_start_ticks)
        empty, pids = await self._launcher.check_tree(run.run_id, shim, run.attempt)
        if empty and alive and run.exit is None:
            pids = [pid for pid in (run.shim_pid,) if pid is not None]  # this shim may start its worker now
        elif empty and self._shims.given_up_shim(run.run_id) is None:
            self._trees.pop(run.run_id, None)
            crash_points.reach("exit.before_conclude")
            await self._recorder.record_outcome(run, Action.EMPTY_TREE, self._conclusion)
            return
        if not alive:
            try:
                await self._shims.teardown(
                    self._order_builder.teardown_order(run, self._shims.given_up_shim(run.run_id))
                )
            except LaunchFailed as error:
                log.event(Catalogue.TEARDOWN_FAILED, run_id=run.run_id, why=error)
        await self._wait_for(run, pids, is_shim_alive=alive)

    def _conclusion(self, run: Run) -> Event:
        retries = self._settings.retries
        wait_s = retry_delay_s(run.retries_used, retries.backoff_s, retries.backoff_max_s, random.random())
        bound = fsm.CrashLoop(retries.crash_loop_attempts, retries.crash_loop_s)
        return fsm.conclude(run, self._clock.wall(), wait_s, bound)

    async def _wait_for(self, run: Run, pids: list[int], *, is_shim_alive: bool) -> None:
        """Check again later; after too long record `unkillable`, and give up a shim that is too slow."""
        now, timeouts = self._clock.mono(), self._settings.timeouts
        tree = self._trees.get(run.run_id)
        if tree is None:
            first_s = timeouts.empty_retry_s
            tree = _Tree(now, Backoff(first_s, max(first_s, MOST_RECHECK_S)), now)
            self._trees[run.run_id] = tree
        bound_s = grace_s(run) + timeouts.unkillable_s
        if now - tree.since_mono > bound_s and not run.unkillable:
            event = Event(Kind.UNKILLABLE, self._clock.wall(), data={"pids": pids[:20]})
            await self._recorder.record_outcome(run, Action.EMPTY_TREE, lambda now: event)
        if is_shim_alive and now - tree.given_up_mono > self._patience_s(run, tree, bound_s):
            log.event(Catalogue.SHIM_STUCK, run_id=run.run_id)
            self._shims.give_up(run.run_id)
            tree.shims += 1
            tree.given_up_mono = now
            tree.backoff.reset()
        if tree.timer is not None:
            tree.timer.cancel()  # one timer is enough; this check had another reason
        tree.timer = self._check_later(run.run_id, tree.backoff.next_s())

    def _patience_s(self, run: Run, tree: _Tree, bound_s: float) -> float:
        """Return the time for the present shim to end the tree, counted from the last shim that was given up.

        It is never shorter than the grace period, which every new shim starts again.
        """
        least_s = bound_s + self._settings.timeouts.post_mortem_s
        most_s = max(MOST_PATIENCE_S, least_s)
        if self._shims.is_attached(run.run_id, run.attempt):
            return most_s  # `shim_watch` finds a connected shim that is silent
        return delay_s(tree.shims, least_s, most_s)
