"""The scheduler: keep the queue up to date with the rows, and record `dispatched` for each run that starts.

The next plan is made when every start of the plan before it is committed, so no slot is given to two runs.
"""

import asyncio
import secrets
from collections.abc import Mapping

from mosaicd import crash_points
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core.explain import Explanation, Holder, Snapshot, explain, reason
from mosaicd.core.fsm import Action, Event, Kind, owed
from mosaicd.core.queue import Queue, Start, Waiting
from mosaicd.core.run import Run
from mosaicd.core.slots import Capacity, Withheld
from mosaicd.dispatch.recorder import Recorder
from mosaicd.store.registry import Registry

#: The wall clock may jump: a wait until a time of day is checked again this often.
MOST_WAIT_S = 60.0


class Scheduler:
    """Start waiting runs when slots are free; call `update` with each committed run."""

    def __init__(self, registry: Registry, settings: Settings, clock: Clock) -> None:
        self._cpus, self._gpus = settings.cpus.slots, settings.gpus.static
        self._clock = clock
        self._recorder = Recorder(registry)
        self._submit_order = registry.submit_order
        self._queue = Queue()
        self._holding: dict[str, Run] = {}
        self._withheld: Mapping[str, Withheld] = {}
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Make a plan soon, because a run may be able to start."""
        self._wake.set()

    def update(self, run: Run) -> None:
        """Update the queue and the runs that hold slots; make a plan if a run may be able to start."""
        if run.is_holding:
            self._holding[run.run_id] = run
        elif self._holding.pop(run.run_id, None) is not None:
            self._wake.set()
        order = self._submit_order.get(run.run_id)  # None: an imported run, whose end follows in this batch
        if owed(run) is Action.QUEUE and order is not None:
            self._queue.put(as_waiting(run, order))
            self._wake.set()
        else:
            self._queue.discard(run.run_id)

    @property
    def withheld(self) -> Mapping[str, Withheld]:
        """Return the slots that quarantined runs may still use, by run id."""
        return self._withheld

    def withhold(self, withheld: Mapping[str, Withheld]) -> None:
        """Withhold these slots from other runs, in place of the slots that were withheld before."""
        self._withheld = withheld
        self._wake.set()

    async def run(self) -> None:
        """Start waiting runs after every change that may allow it, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            starts = self._queue.plan(self.capacity(), self._cpus_by_user(), self._clock.wall())
            self._arm_timer()
            if starts:
                results = await asyncio.gather(*map(self._dispatch, starts), return_exceptions=True)
                for error in results:  # only after every start of the plan is recorded or refused
                    if error is not None:
                        raise error

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def capacity(self) -> Capacity:
        """Return the resources of the machine, those that live runs hold, and those that are withheld."""
        holding = self._holding.values()
        cpus_withheld = sum(withheld.cpus for withheld in self._withheld.values())
        slots_withheld = frozenset(slot for withheld in self._withheld.values() for slot in withheld.slots)
        return Capacity(
            cpus_total=self._cpus,
            cpus_used=sum(run.cpus_granted or 0 for run in holding) + cpus_withheld,
            gpu_slots_total=self._gpus,
            gpu_slots_used=frozenset(slot for run in holding for slot in run.slots) | slots_withheld,
            cpus_withheld=cpus_withheld,
            gpu_slots_withheld=slots_withheld,
        )

    def explain(self, run_id: str, owners: Mapping[int, str]) -> Explanation:
        """Return the facts that keep a run from starting; no facts: it does not wait, or starts next.

        `owners` holds the user names by uid.
        """
        if self._queue.get(run_id) is None:
            return Explanation(run_id, None, [], [])
        return explain(run_id, self._queue, self._snapshot(owners))

    def _snapshot(self, owners: Mapping[int, str]) -> Snapshot:
        """Return the state of the machine for a plan, and the runs that hold slots."""
        holders = [
            Holder(run.run_id, run.name, run.owner, run.owner_uid, run.cpus_granted or 0, run.slots)
            for run in self._holding.values()
        ]
        withheld = list(self._withheld.values())
        return Snapshot(self.capacity(), self._cpus_by_user(), self._clock.wall(), holders, owners, withheld)

    def reason(self, run_id: str) -> str | None:
        """Return in a few words why a run waits, or None if it does not wait."""
        waiting = self._queue.get(run_id)
        return reason(waiting, self.capacity(), self._clock.wall()) if waiting is not None else None

    @property
    def waiting(self) -> int:
        """Return the number of waiting runs, also held ones."""
        return len(self._queue)

    def _cpus_by_user(self) -> dict[int, int]:
        """Return the CPUs that the live runs of each uid hold."""
        used: dict[int, int] = {}
        for run in self._holding.values():
            used[run.owner_uid] = used.get(run.owner_uid, 0) + (run.cpus_granted or 0)
        return used

    def _arm_timer(self) -> None:
        """Make a plan again when the next waiting run may start by its time."""
        self.close()
        now = self._clock.wall()
        due = self._queue.next_due(now)
        if due is not None:
            delay = min(max(0.001, due - now), MOST_WAIT_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake.set)

    async def _dispatch(self, start: Start) -> None:
        """Record `dispatched` with the granted slots, unless the run no longer waits."""

        def decide(now: Run) -> list[Event]:
            if owed(now) is not Action.QUEUE or now.held:
                return []
            data = {
                "attempt": now.attempt + 1,
                "nonce": secrets.token_hex(8),
                "slots": list(start.grant.slots),
                "cpus": start.grant.cpus,
            }
            return [Event(Kind.DISPATCHED, self._clock.wall(), data=data)]

        crash_points.reach("dispatch.chosen")
        await self._recorder.record(start.run_id, decide)


def as_waiting(run: Run, submit_order: int) -> Waiting:
    """Return the entry of a run in the queue; `submit_order` is the number of its row."""
    return Waiting(
        run_id=run.run_id, owner_uid=run.owner_uid, priority=run.priority, cpus=run.cpus, gpus=run.gpus,
        mandatory=run.gpus_mandatory, not_before=run.not_before, held=run.held,
        submit_order=submit_order,
    )  # fmt: skip
