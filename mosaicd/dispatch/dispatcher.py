"""Carries out what each run is owed.

Everything starts from a commit: the registry tells what was committed, `owed` says what follows, and the
effect ends in another event.  So recovery after a crash is the same code, started once over all live
runs.  Effects may be repeated; what may not (a launch, a conclusion) is decided again under the run's
lock.  Nothing here decides a transition, and nothing here touches a process.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core import dead_shim, fsm
from mosaicd.core.deadlines import Deadline, standing
from mosaicd.core.fsm import Action, Event, Kind, owed
from mosaicd.core.run import Progress, Run
from mosaicd.dispatch.deadline_watch import DeadlineWatch
from mosaicd.dispatch.launches import Launches
from mosaicd.dispatch.orders import Orders
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.dispatch.tree_teardown import TreeTeardown
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError, NotFound
from mosaicd.protocol.states import CauseKind, State
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.registry import Committed, Registry

if TYPE_CHECKING:
    from mosaicd.shims.launcher_client import LauncherClient
    from mosaicd.shims.shims import Shims

logger = log.logger(__name__)

#: How long until what was refused, or could not be known, is tried again.
RETRY_S = 1.0
REFUSALS_QUIET_S = 30.0
_SAID = frozenset({Action.STOP, Action.PAUSE, Action.RESUME})


class Dispatcher:
    """Carries out what is owed.  `on_fatal` is called with an error that the daemon must not survive."""

    def __init__(
        self, registry: Registry, launcher: "LauncherClient", shims: "Shims", rundirs: RunDirs,
        orders: Orders, settings: Settings, clock: Clock, on_fatal: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._shims = shims
        self._rundirs = rundirs
        self._orders = orders
        self._settings = settings
        self._clock = clock
        self._on_fatal = on_fatal
        self._deadlines = DeadlineWatch(
            clock, registry.live.get, self._deadline_missed, settings.timeouts.unkillable_s,
            settings.timeouts.pause_ack_s,
        )  # fmt: skip
        self._launches = Launches(shims, orders, rundirs, self._poke_later)
        self._teardowns = TreeTeardown(
            launcher, shims, orders, settings, clock, self._follow, self._tell_stop, self._poke_later
        )
        self.scheduler = Scheduler(settings, clock, self._record, registry.submit_order)
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._quiet_until = 0.0
        registry.subscribe(self._committed)

    # --- start and stop ------------------------------------------------------------------------------

    def start(self) -> None:
        """Carry out what every live run is owed, and begin to dispatch."""
        for run in self._registry.live.values():
            self.scheduler.sort(run)
            self._deadlines.observe(run)
            self.poke(run.run_id)
            self._look_again_at(run.run_id)  # a shim that lives will have registered by then
        self._pump()

    def _pump(self) -> None:
        self.scheduler.wake()
        self._spawn(self.scheduler.pump(), self._pump)

    async def close(self) -> None:
        """Stop carrying out; what is owed stays owed."""
        self._is_closed = True
        self._deadlines.close()
        self.scheduler.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], again: Callable[[], None]) -> None:
        """Have `work` done; where the registry refuses it for now, call `again` a moment later."""
        if self._is_closed:  # requests are still answered: what they lead to is the next daemon's to do
            work.close()
            return

        async def guarded() -> None:
            try:
                await work
            except MosaicError as error:
                self._say_refused(error)
                self._later(RETRY_S, again)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self._on_fatal(error)
                raise

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say_refused(self, error: MosaicError) -> None:
        """Log a refusal: with a full disk every run has one a second, and one line says it all."""
        if self._clock.mono() >= self._quiet_until:
            self._quiet_until = self._clock.mono() + REFUSALS_QUIET_S
            log.event(Catalogue.COMMIT_RETRIED, why=error)

    def _later(self, delay_s: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        def unless_closed() -> None:
            if not self._is_closed:
                act()

        return asyncio.get_running_loop().call_later(delay_s, unless_closed)

    def _poke_later(self, run_id: str, delay_s: float) -> asyncio.TimerHandle:
        return self._later(delay_s, lambda: self.poke(run_id))

    # --- what happened ---------------------------------------------------------------------------------

    def _committed(self, batch: Sequence[Committed]) -> None:
        for committed in batch:
            run = committed.run
            self.scheduler.sort(run)
            self._deadlines.observe(run)
            if run.is_final:
                self._ended(run)
            elif run.state is State.FAULT and committed.event.kind is Kind.STOP_REQUESTED:
                self._tell_stop(run)  # less grace for what is being torn down already
            elif run.state is State.EXEC and committed.event.kind is Kind.RESUME_REQUESTED:
                self._shims.notify(run.run_id, "control.resume", {})  # it may be freezing already
            self.poke(run.run_id)

    def _ended(self, run: Run) -> None:
        crash_points.reach("exit.concluded")
        self._shims.forget(run.run_id)
        self._launches.forget(run.run_id)
        self._teardowns.forget(run.run_id)
        # Off the loop: where others fsync, an unlink waits for them.
        asyncio.get_running_loop().run_in_executor(None, self._forget_order, run)

    def _forget_order(self, run: Run) -> None:
        try:
            self._orders.forget(run)
        except OSError as error:
            log.event(Catalogue.ENVIRONMENT_LEFT, run_id=run.run_id, why=error)

    def poke(self, run_id: str) -> None:
        """Carry out what the run is owed, now or after what is being carried out for it.

        What is only said to its shim is said now: a launch that is under way may wait for its launcher.
        """
        run = self._registry.live.get(run_id)
        action = owed(run) if run is not None else None
        if run is None or action in (None, Action.QUEUE) or self._is_closed:
            return
        if action in _SAID:
            self._say(action, run)
        elif run_id in self._busy:
            self._again.add(run_id)
        else:
            self._busy.add(run_id)
            self._spawn(self._carry_out(run_id), lambda: self.poke(run_id))

    def reason(self, run: Run) -> str | None:
        """Return what keeps the run from starting, or None."""
        return self._launches.trouble(run) if run.state is State.HSHK else self.scheduler.reason(run.run_id)

    def attached(self, run_id: str) -> None:
        """A shim registered: its deadlines start anew, and it is told what its run is owed."""
        run = self._registry.live.get(run_id)
        if run is not None:
            self._deadlines.restart(run)
            self.poke(run_id)

    def beat(self, run_id: str) -> None:
        """The worker showed life."""
        self._deadlines.beat(run_id)

    def moved(self, run_id: str) -> None:
        """The worker's counts changed."""
        self._deadlines.move(run_id)

    def shim_gone(self, run_id: str) -> None:
        """A run's shim, or teardown shim, has ended: read what it left."""
        run = self._registry.live.get(run_id)
        if run is None or not run.is_holding:
            return
        if run.exit is not None and run.state is not State.FAULT:
            self.poke(run_id)  # it told all before it left
        else:
            self._spawn(self._examine(run), lambda: self.shim_gone(run_id))

    def shim_silent(self, run: Run) -> None:
        """A run's shim lives and says nothing: it is taken for lost, and ended before the tree it has."""
        silence_s = self._settings.timeouts.shim_silence_s
        log.event(Catalogue.SHIM_SILENT, run_id=run.run_id, silence_s=silence_s)
        self._shims.give_up(run.run_id)
        why = f"its shim lives and has said nothing for {silence_s:g} s"
        event = Event(Kind.LOST, self._clock.wall(), data={"kind": CauseKind.SHIM_LOST, "reason": why})

        def decide(now: Run) -> list[Event]:
            is_new = now.exit is None and now.state is not State.FAULT
            return [event] if is_new and now.is_holding and now.attempt == run.attempt else []

        async def give_up() -> None:
            await self._record(run.run_id, decide)
            self.poke(run.run_id)

        self._spawn(give_up(), lambda: self.shim_silent(run))

    def _look_again_at(self, run_id: str) -> None:
        """Read a little later what a run's attempt has left, unless a shim of it is known by then."""

        def look() -> None:
            run = self._registry.live.get(run_id)
            if run is not None and not self._shims.is_alive(run_id, run.attempt):
                self.shim_gone(run_id)

        self._later(RETRY_S, look)

    def _deadline_missed(self, run: Run, missed: Deadline) -> None:
        event = self._miss(run, missed)

        def decide(now: Run) -> list[Event]:
            return [event] if standing(now) == standing(run) and now.exit is None else []

        def judge_anew() -> None:  # by then what was not taken, either, may have come
            now = self._registry.live.get(run.run_id)
            if now is not None and now.is_holding:
                self._deadlines.restart(now)

        self._spawn(self._record(run.run_id, decide), judge_anew)

    def _miss(self, run: Run, missed: Deadline) -> Event:
        """Return what a deadline that has passed makes of its run."""
        at, why = self._clock.wall(), {"reason": missed.reason} if missed.reason else {}
        if missed.cause is None:
            log.event(Catalogue.PAUSE_FAILED, run_id=run.run_id, why=missed.reason)
            return Event(Kind.RESUME_REQUESTED, at, data=why)
        data: dict[str, Any] = {"kind": missed.cause, "after_s": missed.after_s, **why}
        trouble = self._launches.trouble(run)
        if missed.cause is CauseKind.HANDSHAKE_TIMEOUT:
            data["error"] = trouble or "its shim never came"
        if missed.cause is CauseKind.STUCK:
            progress = self._registry.progress.get(run.run_id, Progress())
            data |= {"steps": progress.steps, "episodes": progress.episodes}
        return Event(Kind.DEADLINE_MISSED, at, data=data)

    async def _record(self, run_id: str, decide: Callable[[Run], Sequence[Event]]) -> None:
        try:
            await self._registry.record_if(run_id, decide)
        except NotFound:
            logger.debug("run %s ended meanwhile", run_id)

    # --- what an ended shim left --------------------------------------------------------------------------

    async def _examine(self, run: Run) -> None:
        files = await asyncio.to_thread(self._rundirs.examine, run.run_id, run.attempt, run.owner_uid)
        if files.is_held:
            # Another shim of this attempt lives (an order was repeated): watch that one.  Where nothing says
            # who it is (a shim that just begins, a worker between the fork and its exec), look again.
            self._shims.watch_recorded(run.run_id, run.attempt, files.launch)
            self._look_again_at(run.run_id)
            return
        if dead_shim.is_launch_owed(run, files):
            self.poke(run.run_id)
            return

        def decide(now: Run) -> list[Event]:
            return dead_shim.events_of(now, files, self._clock.boot_id(), self._clock.wall())

        await self._record(run.run_id, decide)
        self.poke(run.run_id)

    # --- carrying out -------------------------------------------------------------------------------------

    async def _carry_out(self, run_id: str) -> None:
        try:
            while (run := self._registry.live.get(run_id)) is not None:
                self._again.discard(run_id)
                action = owed(run)
                if action is not None and action is not Action.QUEUE:
                    await self._do(action, run)
                if run_id not in self._again:
                    return
        finally:
            self._busy.discard(run_id)
            self._again.discard(run_id)

    async def _do(self, action: Action, run: Run) -> None:
        match action:
            case Action.WITHDRAW:
                await self._follow(run, action, lambda now: Event(Kind.WITHDRAWN, self._clock.wall()))
            case Action.LAUNCH:
                await self._launch(run)
            case Action.BREAK:
                await self._follow(run, action, lambda now: fsm.breaking(now, self._clock.wall()))
            case Action.EMPTY_TREE:
                await self._teardowns.look(run)
            case _:
                self._say(action, run)

    def _say(self, action: Action, run: Run) -> None:
        """Tell the shim; one that is not connected hears of it when it registers."""
        match action:
            case Action.STOP:
                self._tell_stop(run)
            case Action.PAUSE:
                self._shims.notify(run.run_id, "control.pause", {"mode": run.pause_mode})
            case Action.RESUME:
                self._shims.notify(run.run_id, "control.resume", {})

    async def _follow(self, run: Run, action: Action, event: Callable[[Run], Event]) -> None:
        """Record the event that `action` leads to, unless the run has moved on meanwhile."""

        def decide(now: Run) -> list[Event]:
            return [event(now)] if owed(now) is action and now.attempt == run.attempt else []

        await self._record(run.run_id, decide)

    def _tell_stop(self, run: Run) -> None:
        stop = dict(run.stop or run.fault or {})
        grace = stop.get("grace_s")
        params = {"kind": stop.get("kind"), "who": stop.get("who", "daemon"), "reason": stop.get("reason")}
        self._shims.notify(
            run.run_id, "control.stop", {**params, "grace_s": run.grace_s if grace is None else grace}
        )

    async def _launch(self, run: Run) -> None:
        if self._shims.is_alive(run.run_id, run.attempt):
            return
        crash_points.reach("dispatch.recorded")
        evidence = await self._launches.order(run)
        if evidence is not None:
            event = Event(Kind.SPAWN_FAILED, self._clock.wall(), data=evidence)
            await self._follow(run, Action.LAUNCH, lambda now: event)
