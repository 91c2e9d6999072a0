"""The steps of a simulated machine; the invariants are checked after every step."""

from mosaicd.core.deadlines import deadline, deadline_subject
from mosaicd.core.fsm import Event, Kind, replay
from mosaicd.core.run import Run
from mosaicd.protocol import ulid
from mosaicd.protocol.states import Dedup, RunKind, State, Want
from mosaicd.store.history import History
from tests.simulation.invariants import check_end, check_tree, require
from tests.simulation.machine import CPUS, Machine
from tests.simulation.steps import Step


class World(Machine):
    """A machine to `open`, `take` steps on, and `finish`."""

    # --- steps ------------------------------------------------------------------------------------

    async def take(self, step: Step) -> None:
        """Do one step, carry out the actions that runs are owed, and check every invariant."""
        act = getattr(self, "_do_" + step.what)
        live = sorted(self.registry.live)
        if act.__code__.co_argcount == 3:
            if not live:
                return
            await act(self.registry.live[live[step.run % len(live)]], step.value)
        else:
            await act(step.value)
        await self.settle()
        self.check()

    async def _do_submit(self, size: float) -> None:
        await self._submit(RunKind.COMMAND, int(size))

    async def _do_submit_worker(self, size: float) -> None:
        await self._submit(RunKind.WORKER, int(size))

    async def _submit(self, kind: RunKind, size: int) -> None:
        if len(self.registry.live) >= 12:
            return
        number = next(self._numbers)
        is_worker = kind is RunKind.WORKER
        run = Run(
            run_id=ulid.encode(int(self.clock.wall() * 1000), number.to_bytes(10, "big")),
            owner_uid=1000 + size % 2, owner="a_user", kind=kind, name=f"run-{number}", command=("x",),
            digest=f"{number:064x}", created_at=self.clock.wall(), cpus=size, gpus=size % 3, retries=size % 3,
            start_timeout_s=60.0 if is_worker else None, heartbeat_timeout_s=300.0 if is_worker else None,
            can_pause=is_worker, can_checkpoint=is_worker,
        )  # fmt: skip
        event = Event(Kind.SUBMITTED, run.created_at, "a_user", {"run": run.to_dict()})
        stored, _ = await self.registry.add(event, dedup=Dedup.NEW)
        self.acknowledged[stored.run_id] = stored

    async def _do_pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for run in list(self.registry.live.values()):
            stands, since = self._since.get(run.run_id, (None, 0.0))
            attempt = self._attempt(run)
            if stands != deadline_subject(run) or attempt is None:
                continue
            silent_since = self.clock.mono() if attempt.worker_alive and not attempt.is_stubborn else since
            due = deadline(run, since, silent_since)
            if due is None or due.due_mono > self.clock.mono():
                continue
            kind = Kind.DEADLINE_MISSED if due.cause else Kind.RESUME_REQUESTED
            await self._record(run, kind, {"kind": due.cause, "after_s": due.after_s})

    async def _do_suspend(self, seconds: float) -> None:
        await self._do_pass_time(0.0)  # deadlines that were due before the suspend do not count
        before = dict(self.registry.live)
        self.clock.suspend(seconds)
        await self._do_pass_time(0.0)
        require(before == dict(self.registry.live), "a suspended machine changed a run")

    async def _do_set_clock(self, seconds: float) -> None:
        """Set the wall clock of the machine."""
        self.clock.set_wall(self.clock.wall() + seconds)
        self.began_at += seconds

    async def _do_shim(self, run: Run, value: float) -> None:
        attempt = self._attempt(run)
        if attempt is None or not attempt.shim_alive or attempt.is_silent:
            return
        if not attempt.registered:
            await self._register(run, attempt)
            return
        fact = attempt.next_fact(self.clock.wall())
        if fact is not None:
            await self._record_facts(run, attempt, [fact])

    async def _do_exit(self, run: Run, code: float) -> None:
        attempt = self._attempt(run)
        if (
            attempt is not None
            and attempt.worker_alive
            and not attempt.frozen
            and "stop" not in attempt.orders
        ):
            attempt.will_exit = int(code)

    async def _do_repeat_status(self, run: Run, value: float) -> None:
        attempt = self._attempt(run)
        if attempt is not None and attempt.shim_alive and attempt.registered and not attempt.is_silent:
            before = run
            attempt.registered = False
            await self._register(run, attempt)
            require(self._newest(run).rev - before.rev <= 1, "a repeated status was folded twice")

    async def _do_check_previous(self, run: Run, value: float) -> None:
        old = self.attempts.get((run.run_id, run.attempt - 1))
        if old is not None:
            require(
                not old.worker_alive,
                f"attempt {old.number} of {run.run_id} still works beside the next attempt",
            )

    async def _do_stubborn(self, run: Run, value: float) -> None:
        attempt = self._attempt(run)
        if attempt is not None and attempt.worker_alive:
            attempt.helper_alive = attempt.is_stubborn = True

    async def _do_silence_shim(self, run: Run, value: float) -> None:
        """Let the shim of a run stay alive and do nothing."""
        attempt = self._attempt(run)
        if attempt is not None and attempt.shim_alive:
            attempt.is_silent = True

    async def _do_kill_shim(self, run: Run, value: float) -> None:
        attempt = self._attempt(run)
        if attempt is not None and attempt.shim_alive:
            attempt.shim_alive = False
            await self._read_files(run, attempt)

    async def _do_stop(self, run: Run, grace_s: float) -> None:
        if run.want is not Want.STOP:
            if run.state in (State.INIT, State.HSHK):
                self._stopped_early.add(run.run_id)
            await self._record(run, Kind.STOP_REQUESTED, {"grace_s": grace_s})

    async def _do_pause(self, run: Run, mode: float) -> None:
        if run.want is Want.STOP or run.state is State.FAULT:
            return
        if run.state is State.INIT:
            await self._do_hold(run, 0)
        else:
            mode_name = "release" if mode == 2 and run.can_checkpoint else "freeze"
            await self._record(run, Kind.PAUSE_REQUESTED, {"mode": mode_name})

    async def _do_resume(self, run: Run, value: float) -> None:
        if run.state is not State.FAULT and (run.want is Want.PAUSE or run.held):
            await self._record(run, Kind.RESUME_REQUESTED, {})

    async def _do_hold(self, run: Run, value: float) -> None:
        if run.is_waiting and not run.held:
            await self._record(run, Kind.HOLD, {})

    async def _do_release(self, run: Run, value: float) -> None:
        if run.held:
            await self._record(run, Kind.RELEASE, {})

    async def _do_set_priority(self, run: Run, priority: float) -> None:
        await self._record(run, Kind.SET, {"priority": int(priority)})

    async def _do_crash(self, value: float) -> None:
        await self.registry.close()
        await self.open()
        for run_id, run in self.ended.items():
            require(run_id not in self.registry.live, f"{run.run_id} is live again after a crash")

    async def _do_reboot(self, value: float) -> None:
        await self.registry.close()
        self.clock.reboot(f"boot-{next(self._boots)}")
        for attempt in self.attempts.values():
            attempt.shim_alive = attempt.worker_alive = attempt.helper_alive = False
        await self.open()

    # --- invariants -------------------------------------------------------------------------------

    def check(self) -> None:
        """Check every invariant."""
        holding = [run for run in self.registry.live.values() if run.is_holding]
        slots = [slot for run in holding for slot in run.slots]
        require(len(slots) == len(set(slots)), f"a GPU slot has two owners: {slots}")
        require(sum(run.cpus_granted or 0 for run in holding) <= CPUS, f"more than {CPUS} CPUs are granted")
        known = self.registry.live.keys() | self.ended.keys()
        require(self.acknowledged.keys() == known, "an acknowledged run is missing")
        for run in self.registry.live.values():
            require((run.outcome is not None) == run.is_final, f"{run.run_id}: outcome without TERM")
            check_tree(run, self.attempts.values())
        for attempt in self.attempts.values():
            require(attempt.worker_starts <= 1, f"{attempt.run_id}: attempt {attempt.number} started twice")

    async def finish(self) -> float:
        """Let every run end; check the ends and the ledger; return the simulated hours."""
        for _ in range(400):
            if not self.registry.live:
                break
            for run in list(self.registry.live.values()):
                newest = self.registry.live.get(run.run_id)
                if newest is not None:
                    await self._advance(newest)
            await self._do_pass_time(120.0)
            await self.settle()
            self.check()
        require(
            not self.registry.live,
            f"these runs never end: {[(r.run_id, r.state, r.want) for r in self.registry.live.values()]}",
        )
        await self._check_ledger()
        return (self.clock.wall() - self.began_at) / 3600

    async def _advance(self, run: Run) -> None:
        if run.held:
            await self._do_release(run, 0)
        elif run.want is Want.PAUSE:
            await self._do_resume(run, 0)
        attempt = self._attempt(run)
        if attempt is not None and attempt.is_silent:
            await self._do_stop(self._newest(run), 0)  # a silent shim does not end its run
        if attempt is not None and attempt.life_at is not None:
            await self._do_exit(self._newest(run), 0)
        newest = self.registry.live.get(run.run_id)
        if newest is not None:
            await self._do_shim(newest, 0)

    async def _check_ledger(self) -> None:
        await self.registry.flush()
        history = History(self._path)
        try:
            for run_id, run in self.ended.items():
                stored = await history.events(0, 10_000, run_id)
                events = [Event(Kind(e.kind), e.at, e.who, e.data) for e in stored]
                require(replay(events) == run, f"the events of {run_id} do not lead to its row")
                check_end(run, self._attempt(run), stopped_early=run_id in self._stopped_early)
        finally:
            await history.close()
