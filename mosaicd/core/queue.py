"""The order of the queue: by priority, then the owner with the fewest CPUs, then the order of submission.

A run that does not fit keeps its place: free slots that it needs are earmarked for it, and only other slots
go to runs behind it.  So small runs use real gaps and cannot starve a big run.  Note: the fair share is
computed again after every start, so a plan that starts several runs alternates between owners.  CPUs that are
earmarked for a waiting run stay idle on purpose.

Earmarks also make a plan cheap: each considered run takes a CPU, so a plan considers at most as many runs as
the machine has CPUs.  A run that was due once stays due, also if the wall clock steps back.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from mosaicd.core.slots import Capacity, Grant, choose, cpus_due, earmark


@dataclass(frozen=True, slots=True)
class Waiting:
    """The fields of a waiting run that the queue needs.

    `submit_order` grows with every submit (the registry's number of the row); `not_before` is wall clock.
    """

    run_id: str
    owner_uid: int
    priority: int = 0
    cpus: int = 1
    gpus: int = 0
    mandatory: bool = False
    not_before: float | None = None
    held: bool = False
    submit_order: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A run that starts now, with its grant."""

    run_id: str
    grant: Grant


@dataclass(frozen=True, slots=True)
class Considered:
    """A run in a plan: the capacity that was free when it was considered, and its grant (None: it waits)."""

    run: Waiting
    seen: Capacity
    grant: Grant | None


_Lane = list[tuple[int, str]]


class Queue:
    """The waiting runs, kept in order: one lane for each priority and owner.

    `plan` does not change the queue; the caller removes started runs with `discard`.
    """

    def __init__(self, runs: Iterable[Waiting] = ()) -> None:
        self._runs: dict[str, Waiting] = {}
        self._lanes: dict[tuple[int, int], _Lane] = {}
        self._later: list[tuple[float, str]] = []
        for run in runs:
            self.put(run)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._runs.values())

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def get(self, run_id: str) -> Waiting | None:
        """Return the waiting run of that id."""
        return self._runs.get(run_id)

    def put(self, run: Waiting) -> None:
        """Add a run, or replace the run with the same id."""
        self.discard(run.run_id)
        self._runs[run.run_id] = run
        if run.held:
            return
        if run.not_before is None:
            self._admit(run)
        else:
            heappush(self._later, (run.not_before, run.run_id))

    def discard(self, run_id: str) -> None:
        """Remove a run; a missing run is no error."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return
        key, entry = _place(run)
        lane = self._lanes.get(key, [])
        index = bisect_left(lane, entry)
        if index < len(lane) and lane[index] == entry:
            del lane[index]
            if not lane:
                del self._lanes[key]

    def next_due(self, now: float) -> float | None:
        """Return the earliest `not_before` after `now`: the time of the next plan if nothing else happens."""
        self._admit_due(now)
        return self._later[0][0] if self._later else None

    def plan(self, capacity: Capacity, used: Mapping[int, int], now: float) -> list[Start]:
        """Return the runs that start now, in order; `used` has the CPUs that the runs of each owner hold."""
        considered = self.consider(capacity, used, now)
        return [Start(one.run.run_id, one.grant) for one in considered if one.grant is not None]

    def consider(self, capacity: Capacity, used: Mapping[int, int], now: float) -> Iterator[Considered]:
        """Yield the runs in their order until no CPU is left to grant or to earmark."""
        share = dict(used)
        for run in self._in_order(share, now):
            if not capacity.cpus_free:
                return
            grant = choose(run.cpus, run.gpus, run.mandatory, capacity)
            yield Considered(run, capacity, grant)
            if grant is not None:
                share[run.owner_uid] = share.get(run.owner_uid, 0) + grant.cpus
            capacity = capacity.less(grant or earmark(run.cpus, run.gpus, run.mandatory, capacity))

    def order(self, capacity: Capacity, used: Mapping[int, int], now: float) -> list[Waiting]:
        """Return every run that is due, in the order in which they would start if all fitted."""
        share = dict(used)
        order = []
        for run in self._in_order(share, now):
            order.append(run)
            share[run.owner_uid] = share.get(run.owner_uid, 0) + cpus_due(run.cpus, capacity)
        return order

    def _in_order(self, share: Mapping[int, int], now: float) -> Iterator[Waiting]:
        """Yield runs by priority, share and submission; the caller may raise the share of the last owner."""
        self._admit_due(now)
        for priority in sorted({priority for priority, _ in self._lanes}, reverse=True):
            heads = []
            for (of, owner), lane in self._lanes.items():
                if of == priority:
                    heads.append((share.get(owner, 0), *lane[0], owner, 0, lane))
            heapify(heads)
            while heads:
                _, _, run_id, owner, index, lane = heappop(heads)
                yield self._runs[run_id]
                if index + 1 < len(lane):
                    heappush(heads, (share.get(owner, 0), *lane[index + 1], owner, index + 1, lane))

    def _admit_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due, run_id = heappop(self._later)
            run = self._runs.get(run_id)
            if run is not None and not run.held and run.not_before == due:
                self._admit(run)
        while self._later and self._is_stale(*self._later[0]):
            heappop(self._later)

    def _is_stale(self, due: float, run_id: str) -> bool:
        """Return whether the run of an entry has left the queue, is held, or has another `not_before` now."""
        run = self._runs.get(run_id)
        return run is None or run.held or run.not_before != due

    def _admit(self, run: Waiting) -> None:
        key, entry = _place(run)
        lane = self._lanes.setdefault(key, [])
        index = bisect_left(lane, entry)
        if lane[index : index + 1] != [entry]:
            insort(lane, entry)


def _place(run: Waiting) -> tuple[tuple[int, int], tuple[int, str]]:
    return (run.priority, run.owner_uid), (run.submit_order, run.run_id)
