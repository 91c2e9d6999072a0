"""A simulated daemon with the real core and the real store, on a machine with simulated time and shims.

One loop calls the same functions as the daemon (`owed`, the queue, missed_events, conclude) over a real
Registry in a real file, so that a seed always gives the same history.
"""

import itertools
from pathlib import Path
from typing import Any

from mosaicd.core import dead_shim, missed_events
from mosaicd.core.deadlines import DeadlineSubject, deadline_subject
from mosaicd.core.fsm import Action, Event, Kind, broke_event, conclude, is_legal, owed
from mosaicd.core.queue import Queue
from mosaicd.core.run import Run
from mosaicd.core.slots import Capacity
from mosaicd.dispatch.scheduler import as_waiting
from mosaicd.protocol.states import RunKind, State
from mosaicd.store.registry import Registry
from tests.harness.clock import ManualClock
from tests.simulation.invariants import BrokenInvariant, check_order
from tests.simulation.peers import Attempt

CPUS, GPUS = 4, 2
SETTLE_ROUNDS = 200
PATIENCE_S = 30.0


class Machine:
    """One simulated machine: `open` it, change shims and workers, and `settle` it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "registry.sqlite3"
        self.clock = ManualClock()
        self.began_at = self.clock.wall()
        self._numbers = itertools.count(1)
        self._boots = itertools.count(2)
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.acknowledged: dict[str, Run] = {}
        self.ended: dict[str, Run] = {}
        self._since: dict[str, tuple[DeadlineSubject, float]] = {}
        self._stopped_early: set[str] = set()
        self.events = 0

    async def open(self) -> None:
        """Start the simulated daemon: load, reconcile, settle."""
        self.registry = await Registry.open(self._path, clock=self.clock)
        self.registry.subscribe(lambda batch: setattr(self, "events", self.events + len(batch)))
        for run in list(self.registry.live.values()):
            attempt = self._attempt(run)
            if attempt is not None and run.is_holding and not attempt.shim_alive:
                await self._read_files(run, attempt)
        self._since.clear()
        await self.settle()

    async def close(self) -> None:
        """Stop the simulated daemon; shims and workers stay."""
        await self.registry.close()

    async def settle(self) -> None:
        """Carry out the action that each run is owed, until there is none."""
        for _ in range(SETTLE_ROUNDS):
            before = self.events
            for run in list(self.registry.live.values()):
                self._note_state(run)
                await self._carry_out(run)
            await self._dispatch()
            if self.events == before:
                return
        raise BrokenInvariant(
            f"the owed actions never end: {[(r.run_id, owed(r)) for r in self.registry.live.values()]}"
        )

    def _note_state(self, run: Run) -> None:
        if self._since.get(run.run_id, (None, 0.0))[0] != deadline_subject(run):
            self._since[run.run_id] = deadline_subject(run), self.clock.mono()

    async def _carry_out(self, run: Run) -> None:
        attempt = self._attempt(run)
        match owed(run):
            case Action.WITHDRAW:
                await self._record(run, Kind.WITHDRAWN, {})
            case Action.LAUNCH:
                self._launch(run)
            case Action.BREAK:
                await self._fold(run, broke_event(run, self.clock.wall()))
            case Action.EMPTY_TREE:
                await self._empty_tree(run, attempt)
            case Action.STOP if attempt is not None:
                attempt.orders["stop"] = {
                    "kind": str((run.stop or {}).get("kind", "by_user")),
                    "who": "a_user",
                }
            case Action.PAUSE if attempt is not None:
                attempt.orders["pause"] = "release" if run.pause_mode == "release" else True
            case Action.RESUME if attempt is not None:
                attempt.orders["pause"] = False
            case _:
                pass

    def _launch(self, run: Run) -> None:
        """Launch a shim; a repeated order does not start a second attempt."""
        attempt = self._attempt(run)
        if attempt is None or not (attempt.shim_alive or attempt.has_launch_file):
            assert run.nonce is not None
            self.attempts[run.run_id, run.attempt] = Attempt(
                run.run_id, run.attempt, run.nonce, run.kind is RunKind.WORKER, self.clock.boot_id()
            )

    async def _empty_tree(self, run: Run, attempt: Attempt | None) -> None:
        if attempt is not None and attempt.is_silent:
            attempt.shim_alive &= (
                self.clock.mono() - self._since[run.run_id][1] < PATIENCE_S
            )  # then the daemon kills the shim
        if attempt is not None and attempt.shim_alive and run.exit is None:
            attempt.orders["stop"] = {"kind": "by_user", "who": "daemon"}
            fact = attempt.next_fact(self.clock.wall()) if attempt.registered else None
            if fact is not None and fact["fact"] == "exited":
                await self._record_facts(run, attempt, [fact])
            elif not attempt.registered and not attempt.is_silent:
                attempt.shim_alive = False  # the daemon refuses it, and it exits
            return
        if attempt is not None and not attempt.is_empty:
            attempt.worker_alive = attempt.helper_alive = False  # the shim or a teardown shim ends the tree
            return
        await self._fold(run, conclude(run, self.clock.wall(), 30.0))

    async def _dispatch(self) -> None:
        holding = [run for run in self.registry.live.values() if run.is_holding]
        used: dict[int, int] = {}
        for run in holding:
            used[run.owner_uid] = used.get(run.owner_uid, 0) + (run.cpus_granted or 0)
        due = [run for run in self.registry.live.values() if owed(run) is Action.QUEUE]
        queue = Queue(as_waiting(run, self.registry.submit_order[run.run_id]) for run in due)
        for start in queue.plan(self._capacity(holding), used, self.clock.wall()):
            run = self.registry.live[start.run_id]
            waiting = [other for other in self.registry.live.values() if _may_start(other)]
            check_order(run, waiting, list(self.acknowledged))
            data = {"attempt": run.attempt + 1, "nonce": f"{run.attempt + 1:016x}", "cpus": start.grant.cpus}
            await self._record(run, Kind.DISPATCHED, {**data, "slots": list(start.grant.slots)})

    @staticmethod
    def _capacity(holding: list[Run]) -> Capacity:
        slots = frozenset(slot for run in holding for slot in run.slots)
        return Capacity(CPUS, sum(run.cpus_granted or 0 for run in holding), GPUS, slots)

    async def _register(self, run: Run, attempt: Attempt) -> None:
        if not run.is_holding or run.attempt != attempt.number:
            attempt.shim_alive = False
            return
        attempt.registered = attempt.has_launch_file = True
        events: list[Event] = []
        if run.state is State.HSHK and is_legal(run, Kind.REGISTERED):
            await self._record(run, Kind.REGISTERED, {"shim_pid": 77, "shim_start_ticks": 1})
            run = self._newest(run)
        events = missed_events.from_status(run, attempt.status(), self.clock.wall())
        await self._fold(run, *events)

    async def _record_facts(self, run: Run, attempt: Attempt, facts: list[dict[str, Any]]) -> None:
        if run.attempt == attempt.number and run.is_holding:
            events, _ = missed_events.from_facts(run, facts)
            await self._fold(run, *events)

    async def _read_files(self, run: Run, attempt: Attempt) -> None:
        """Record the events that follow from the files of a dead shim, like reconcile and the dispatcher."""
        at = self.clock.wall()
        await self._fold(run, *dead_shim.events_of(run, attempt.files(), self.clock.boot_id(), at))

    async def _record(self, run: Run, kind: Kind, data: dict[str, Any]) -> None:
        await self._fold(run, Event(kind, self.clock.wall(), "a_user", data))

    async def _fold(self, run: Run, *events: Event) -> None:
        if events:
            after = await self.registry.record(run.run_id, *events)
            if after.is_final:
                self.ended[after.run_id] = after

    def _newest(self, run: Run) -> Run:
        return self.registry.live.get(run.run_id) or self.ended[run.run_id]

    def _attempt(self, run: Run) -> Attempt | None:
        return self.attempts.get((run.run_id, run.attempt))


def _may_start(run: Run) -> bool:
    return owed(run) is Action.QUEUE and not run.held and run.not_before is None
