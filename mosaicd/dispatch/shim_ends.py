"""The end of a shim: read its files, and record the events that follow for its run.

A shim has ended if its process has ended, or if the daemon gives it up because it lives and is silent.
`core.dead_shim` decides which events follow from the files.
"""

import asyncio
from collections.abc import Callable

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.core import dead_shim
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.dispatch.guarded_tasks import GuardedTasks
from mosaicd.dispatch.recorder import Recorder
from mosaicd.log import Catalogue
from mosaicd.protocol.states import CauseKind, State
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.shims import Shims
from mosaicd.store.registry import Registry

#: The wait before the files of an attempt are read again, if they do not name the shim that holds its lock.
CHECK_AGAIN_S = 1.0


class ShimEnds:
    """Handle shims that have ended; `carry_out(run_id)` then carries out what the run is owed."""

    def __init__(
        self, registry: Registry, shims: Shims, rundirs: RunDirs, recorder: Recorder, tasks: GuardedTasks,
        clock: Clock, carry_out: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._shims = shims
        self._rundirs = rundirs
        self._recorder = recorder
        self._tasks = tasks
        self._clock = clock
        self._carry_out = carry_out

    def handle_ended_shim(self, run_id: str) -> None:
        """Read the files of a run whose shim, or teardown shim, has ended."""
        run = self._registry.live.get(run_id)
        if run is None or not run.is_holding:
            return
        if run.exit is not None and run.state is not State.FAULT:
            self._carry_out(run_id)  # the shim had reported the exit
        else:
            self._tasks.start(self._read_files(run), lambda: self.handle_ended_shim(run_id))

    def handle_silent(self, run: Run, silence_s: float) -> None:
        """Give up a shim that lives and is silent; a teardown shim ends it and then the process tree."""
        log.event(Catalogue.SHIM_SILENT, run_id=run.run_id, silence_s=silence_s)
        self._shims.give_up(run.run_id)
        why = f"the shim is alive but has sent nothing for {silence_s:g} s"
        event = Event(Kind.LOST, self._clock.wall(), data={"kind": CauseKind.SHIM_LOST, "reason": why})

        def decide(now: Run) -> list[Event]:
            is_new = now.exit is None and now.state is not State.FAULT
            return [event] if is_new and now.is_holding and now.attempt == run.attempt else []

        async def record_loss() -> None:
            await self._recorder.record(run.run_id, decide)
            self._carry_out(run.run_id)

        self._tasks.start(record_loss(), lambda: self.handle_silent(run, silence_s))

    def check_later(self, run_id: str) -> None:
        """Read the files of a run a little later, unless a living shim of it is known by then."""

        def check() -> None:
            run = self._registry.live.get(run_id)
            if run is not None and not self._shims.is_alive(run_id, run.attempt):
                self.handle_ended_shim(run_id)

        self._tasks.call_later(CHECK_AGAIN_S, check)

    async def _read_files(self, run: Run) -> None:
        files = await asyncio.to_thread(self._rundirs.read_attempt, run.run_id, run.attempt, run.owner_uid)
        if files.is_held:
            # Another shim of this attempt lives, because an order was repeated: watch that one.  A shim that
            # has just begun, or a worker between its fork and its exec, is not named yet: check again.
            self._shims.watch_recorded(run.run_id, run.attempt, files.launch)
            self.check_later(run.run_id)
            return
        if not dead_shim.is_launch_owed(run, files):

            def decide(now: Run) -> list[Event]:
                return dead_shim.events_of(now, files, self._clock.boot_id(), self._clock.wall())

            await self._recorder.record(run.run_id, decide)
        self._carry_out(run.run_id)
