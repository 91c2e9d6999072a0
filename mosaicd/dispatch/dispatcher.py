"""Carry out what each run is owed.

Each step starts from a commit: the registry reports the committed event, `fsm.owed` returns the action that
follows, and the action ends in another event.  After a crash the same code starts once for all live runs.
Actions may be repeated; a step that must happen only once (a launch, a conclusion) is decided again under the
lock of the run.  `core.fsm` decides transitions; shims and the launcher start and stop processes.
"""

import asyncio
from collections.abc import Callable, Sequence

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core import fsm
from mosaicd.core.deadlines import Deadline, deadline_subject, missed_event
from mosaicd.core.fsm import Action, Event, Kind, owed
from mosaicd.core.run import Progress, Run
from mosaicd.dispatch.deadline_watch import DeadlineWatch
from mosaicd.dispatch.guarded_tasks import GuardedTasks
from mosaicd.dispatch.launches import Launches
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.dispatch.recorder import Recorder
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.dispatch.shim_control import NOTIFIED, ShimControl
from mosaicd.dispatch.shim_ends import ShimEnds
from mosaicd.dispatch.tree_teardown import TreeTeardown
from mosaicd.log import Catalogue
from mosaicd.protocol.states import State
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.shims.shims import Shims
from mosaicd.store.registry import Committed, Registry


class Dispatcher:
    """Carry out what runs are owed; `on_fatal` is called with an error that the daemon must not survive."""

    def __init__(
        self, registry: Registry, scheduler: Scheduler, launcher: LauncherClient, shims: Shims,
        rundirs: RunDirs, order_builder: OrderBuilder, settings: Settings, clock: Clock,
        on_fatal: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._scheduler = scheduler
        self._shims = shims
        self._order_builder = order_builder
        self._clock = clock
        self._silence_s = settings.timeouts.shim_silence_s
        self._tasks = GuardedTasks(clock, on_fatal)
        self._recorder = Recorder(registry)
        self._control = ShimControl(shims)
        self._deadlines = DeadlineWatch(
            clock, registry.live.get, self._record_miss, settings.timeouts.unkillable_s,
            settings.timeouts.pause_ack_s,
        )  # fmt: skip
        self._launches = Launches(shims, order_builder, rundirs, self._carry_out_later)
        self._teardowns = TreeTeardown(
            launcher, shims, order_builder, settings, clock, self._recorder, self._control,
            self._carry_out_later,
        )  # fmt: skip
        self._shim_ends = ShimEnds(
            registry, shims, rundirs, self._recorder, self._tasks, clock, self.carry_out_owed
        )
        self._busy: set[str] = set()  # runs with an action in progress
        self._again: set[str] = set()  # runs to check again after it
        registry.subscribe(self._follow_commits)

    # --- start and stop ------------------------------------------------------------------------------

    def start(self) -> None:
        """Carry out what every live run is owed, and begin to schedule."""
        for run in self._registry.live.values():
            self._scheduler.update(run)
            self._deadlines.observe(run)
            self.carry_out_owed(run.run_id)
            self._shim_ends.check_later(run.run_id)  # a living shim registers before the check
        self._start_scheduler()

    def _start_scheduler(self) -> None:
        self._scheduler.wake()
        self._tasks.start(self._scheduler.run(), self._start_scheduler)

    async def close(self) -> None:
        """Stop carrying out actions; the next daemon carries out the rest."""
        self._deadlines.close()
        self._scheduler.close()
        await self._tasks.close()

    def _carry_out_later(self, run_id: str, delay_s: float) -> asyncio.TimerHandle:
        return self._tasks.call_later(delay_s, lambda: self.carry_out_owed(run_id))

    # --- commits and reports ------------------------------------------------------------------------------

    def _follow_commits(self, batch: Sequence[Committed]) -> None:
        for committed in batch:
            run = committed.run
            self._scheduler.update(run)
            self._deadlines.observe(run)
            if run.is_final:
                self._forget(run)
            elif run.state is State.FAULT and committed.event.kind is Kind.STOP_REQUESTED:
                self._control.send_stop(run)  # a shorter grace for the tree that is being torn down
            elif run.state is State.EXEC and committed.event.kind is Kind.RESUME_REQUESTED:
                self._control.send_resume(run)  # the shim may be freezing the tree
            self.carry_out_owed(run.run_id)

    def _forget(self, run: Run) -> None:
        """Drop the data of a run that has ended, and remove its environment."""
        crash_points.reach("exit.concluded")
        self._shims.forget(run.run_id)
        self._launches.forget(run.run_id)
        self._teardowns.forget(run.run_id)
        # In a thread: an unlink waits while other files of that disk are synced.
        asyncio.get_running_loop().run_in_executor(None, self._remove_environment, run)

    def _remove_environment(self, run: Run) -> None:
        try:
            self._order_builder.remove_environment(run)
        except OSError as error:
            log.event(Catalogue.ENVIRONMENT_LEFT, run_id=run.run_id, why=error)

    def note_registered(self, run_id: str) -> None:
        """Restart the deadlines of a run whose shim has registered, and carry out what the run is owed."""
        run = self._registry.live.get(run_id)
        if run is not None:
            self._deadlines.restart(run)
            self.carry_out_owed(run_id)

    def note_beat(self, run_id: str) -> None:
        """Note that the worker gave a sign of life."""
        self._deadlines.note_beat(run_id)

    def note_progress(self, run_id: str) -> None:
        """Note that the counts of the worker changed."""
        self._deadlines.note_progress(run_id)

    def handle_ended_shim(self, run_id: str) -> None:
        """Record the events that follow from the files of a run whose shim, or teardown shim, has ended."""
        self._shim_ends.handle_ended_shim(run_id)

    def handle_silent_shim(self, run: Run) -> None:
        """Give up a run's shim that lives and is silent."""
        self._shim_ends.handle_silent(run, self._silence_s)

    def _record_miss(self, run: Run, missed: Deadline) -> None:
        """Record that a deadline passed, unless the run has moved on."""
        if missed.cause is None:
            log.event(Catalogue.PAUSE_FAILED, run_id=run.run_id, why=missed.reason)
        progress = self._registry.progress.get(run.run_id, Progress())
        event = missed_event(missed, self._clock.wall(), self._launches.fork_error(run), progress)

        def decide(now: Run) -> list[Event]:
            return [event] if deadline_subject(now) == deadline_subject(run) and now.exit is None else []

        def restart_deadline() -> None:  # a sign of life may have come since
            now = self._registry.live.get(run.run_id)
            if now is not None and now.is_holding:
                self._deadlines.restart(now)

        self._tasks.start(self._recorder.record(run.run_id, decide), restart_deadline)

    # --- carrying out -------------------------------------------------------------------------------------

    def carry_out_owed(self, run_id: str) -> None:
        """Carry out the action that the run is owed, after the action in progress for it, if there is one.

        A notification is sent immediately, because a launch in progress may wait for the launcher.
        """
        run = self._registry.live.get(run_id)
        action = owed(run) if run is not None else None
        if run is None or action is None or action is Action.QUEUE or self._tasks.is_closed:
            return
        if action in NOTIFIED:
            self._control.send(action, run)
        elif run_id in self._busy:
            self._again.add(run_id)
        else:
            self._busy.add(run_id)
            self._tasks.start(self._carry_out(run_id), lambda: self.carry_out_owed(run_id))

    async def _carry_out(self, run_id: str) -> None:
        """Carry out what the run is owed, again if a commit asked for a check meanwhile."""
        try:
            while (run := self._registry.live.get(run_id)) is not None:
                self._again.discard(run_id)
                action = owed(run)
                if action is not None and action is not Action.QUEUE:
                    await self._carry_out_action(action, run)
                if run_id not in self._again:
                    return
        finally:
            self._busy.discard(run_id)
            self._again.discard(run_id)

    async def _carry_out_action(self, action: Action, run: Run) -> None:
        """Carry out one owed action; it ends in an event, or in a notification to the shim."""
        match action:
            case Action.WITHDRAW:
                withdrawn = Event(Kind.WITHDRAWN, self._clock.wall())
                await self._recorder.record_outcome(run, action, lambda _: withdrawn)
            case Action.LAUNCH:
                await self._launch(run)
            case Action.BREAK:
                at = self._clock.wall()
                await self._recorder.record_outcome(run, action, lambda now: fsm.broke_event(now, at))
            case Action.EMPTY_TREE:
                await self._teardowns.conclude_or_tear_down(run)
            case _:  # STOP, PAUSE, RESUME: owed since this task began
                self._control.send(action, run)

    async def _launch(self, run: Run) -> None:
        if self._shims.is_alive(run.run_id, run.attempt):
            return
        crash_points.reach("dispatch.recorded")
        evidence = await self._launches.order(run)
        if evidence is not None:
            failed = Event(Kind.SPAWN_FAILED, self._clock.wall(), data=evidence)
            await self._recorder.record_outcome(run, Action.LAUNCH, lambda _: failed)

    # --- reasons ----------------------------------------------------------------------------------------

    def reason(self, run: Run) -> str | None:
        """Return what keeps the run from starting, or None."""
        if run.state is State.HSHK:
            return self._launches.fork_error(run)
        return self._scheduler.reason(run.run_id)
