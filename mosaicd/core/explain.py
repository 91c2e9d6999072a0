"""The explanation of a waiting run: every fact that blocks it, and the smallest changes that would start it
now.

Each change is verified: the queue is planned again with the change, and the run must start.  Note: facts
describe the present (a run may wait for CPUs *and* for runs ahead of it).  The runs ahead are those with a
better place now, not all that were submitted earlier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from mosaicd.core.params import MAX_PRIORITY
from mosaicd.core.queue import Considered, Queue, Waiting
from mosaicd.core.slots import Capacity, Grant, Withheld, counted, cpus_due, gpus_due
from mosaicd.protocol import Json

#: The number of runs that a fact names; its count includes all of them.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that holds slots."""

    run_id: str
    name: str
    owner: str
    owner_uid: int
    cpus: int
    slots: tuple[int, ...] = ()

    @property
    def grant(self) -> Grant:
        """The slots that become free when it ends."""
        return Grant(self.cpus, self.slots)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All inputs of a plan, and the runs that hold slots."""

    capacity: Capacity
    used: Mapping[int, int]
    now: float
    holders: Sequence[Holder] = ()
    owners: Mapping[int, str] = field(default_factory=dict)
    withheld: Sequence[Withheld] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """`facts` is empty when the run starts with the next plan; `changes` are alternatives, smallest first."""

    run_id: str
    reason: str | None
    facts: list[Json]
    changes: list[list[Json]]

    def to_dict(self) -> Json:
        """Return the wire form."""
        return {"run_id": self.run_id, "reason": self.reason, "facts": self.facts, "changes": self.changes}


def reason(run: Waiting, capacity: Capacity, now: float) -> str:
    """Return a short reason why a run waits; it is cheap, because the queue is not planned."""
    if run.held:
        return "held"
    if run.not_before is not None and run.not_before > now:
        return f"retry in {ceil(run.not_before - now)} s"
    if run.mandatory and run.gpus > capacity.gpu_slots_total:
        return f"needs {counted(run.gpus, 'GPU')}, the machine has {capacity.gpu_slots_total}"
    short = []
    cpus, gpus = cpus_due(run.cpus, capacity), gpus_due(run.gpus, capacity)
    if cpus > capacity.cpus_free:
        aside = _reserved_note(capacity.cpus_withheld)
        short.append(f"{counted(cpus, 'CPU')}, {capacity.cpus_free} of {capacity.cpus_total} free{aside}")
    if gpus > len(capacity.gpus_free):
        free, aside = len(capacity.gpus_free), _reserved_note(len(capacity.gpu_slots_withheld))
        short.append(f"{counted(gpus, 'GPU')}, {free} of {capacity.gpu_slots_total} free{aside}")
    return "needs " + "; ".join(short) if short else "waits in the queue"


def _reserved_note(withheld: int) -> str:
    """Return a note about slots that are reserved for quarantined runs; empty if there are none."""
    return f" ({withheld} reserved)" if withheld else ""


def explain(run_id: str, queue: Queue, snapshot: Snapshot) -> Explanation:
    """Return why `run_id` waits; raise KeyError if it does not wait.  The queue is not changed."""
    run = queue.get(run_id)
    if run is None:
        raise KeyError(run_id)
    probe = Queue(queue)
    facts = _own_facts(run, snapshot)
    freed = replace(run, held=False, not_before=None)
    probe.put(freed)
    if not _starts(freed, probe, snapshot):
        facts += _capacity_facts(run, snapshot)
        facts += _withheld_facts(facts, snapshot)
        ahead = _runs_ahead(freed, probe, snapshot)
        if ahead:
            facts.append(_queue_fact(freed, [*ahead.values()], snapshot))
    if not facts:
        return Explanation(run_id, None, [], [])
    return Explanation(
        run_id, reason(run, snapshot.capacity, snapshot.now), facts, _changes(run, probe, snapshot)
    )


def _own_facts(run: Waiting, snapshot: Snapshot) -> list[Json]:
    """Return the facts about the run itself: a hold, a back-off, GPUs that the machine lacks."""
    facts: list[Json] = []
    if run.held:
        facts.append({"fact": "held", "text": "it is held"})
    if run.not_before is not None and run.not_before > snapshot.now:
        wait_s = round(run.not_before - snapshot.now, 3)
        facts.append(
            {
                "fact": "not_before",
                "text": f"its next attempt starts in {wait_s:g} s or later",
                "not_before": run.not_before,
                "wait_s": wait_s,
            }
        )
    total = snapshot.capacity.gpu_slots_total
    if run.mandatory and run.gpus > total:
        text = f"it requires {counted(run.gpus, 'GPU')}; the machine has {total}"
        facts.append({"fact": "impossible", "text": text, "requested": run.gpus, "total": total})
    return facts


def _capacity_facts(run: Waiting, snapshot: Snapshot) -> list[Json]:
    """Return the facts about slots that are not free, and the runs that hold them."""
    capacity = snapshot.capacity
    needs = (
        ("cpus", "CPU", cpus_due(run.cpus, capacity), capacity.cpus_free, capacity.cpus_total),
        ("gpus", "GPU", gpus_due(run.gpus, capacity), len(capacity.gpus_free), capacity.gpu_slots_total),
    )
    facts = []
    for fact, noun, due, free, total in needs:
        if due <= free:
            continue
        holders = [holder for holder in snapshot.holders if (holder.cpus if fact == "cpus" else holder.slots)]
        verb = "is" if free == 1 else "are"
        facts.append(
            {
                "fact": fact,
                "text": f"it needs {counted(due, noun)}; {free} of {total} {verb} free",
                "needed": due,
                "free": free,
                "total": total,
                "held_by": [_named_holder(holder) for holder in holders[:MAX_NAMED]],
                "holders": len(holders),
            }
        )
    return facts


def _withheld_facts(short: Sequence[Json], snapshot: Snapshot) -> list[Json]:
    """Return the facts about slots of quarantined runs, if slots of that kind are short."""
    missing = {fact["fact"] for fact in short}
    return [
        {
            "fact": "withheld", "text": withheld.summary(), "run_id": withheld.run_id, "cpus": withheld.cpus,
            "slots": list(withheld.slots), "pids": list(withheld.pids),
        }
        for withheld in snapshot.withheld
        if (withheld.cpus and "cpus" in missing) or (withheld.slots and "gpus" in missing)
    ][:MAX_NAMED]  # fmt: skip


def _runs_ahead(run: Waiting, probe: Queue, snapshot: Snapshot) -> dict[str, Considered | Waiting]:
    """Return the runs before the run: those considered now, then the others with a better place."""
    ahead: dict[str, Considered | Waiting] = {}
    for considered in probe.consider(snapshot.capacity, snapshot.used, snapshot.now):
        if considered.run.run_id == run.run_id:
            return ahead
        ahead[considered.run.run_id] = considered
    for waiting in probe.order(snapshot.capacity, snapshot.used, snapshot.now):
        if waiting.run_id == run.run_id:
            break
        ahead.setdefault(waiting.run_id, waiting)
    return ahead


def _queue_fact(run: Waiting, ahead: Sequence[Considered | Waiting], snapshot: Snapshot) -> Json:
    others = [
        (one.run, one.grant is not None) if isinstance(one, Considered) else (one, False) for one in ahead
    ]
    names = sorted({_owner(other, snapshot) for other, _ in others})
    count = len(others)
    return {
        "fact": "queue",
        "text": f"{count} run{'s are' if count > 1 else ' is'} ahead of it ({', '.join(names[:MAX_NAMED])})",
        "ahead": count,
        "runs": [
            {
                "run_id": other.run_id,
                "owner": _owner(other, snapshot),
                "cpus": other.cpus,
                "gpus": other.gpus,
                "priority": other.priority,
                "because": _because(run, other, snapshot.used),
                "starts": starts,
            }
            for other, starts in others[:MAX_NAMED]
        ],
    }


def _because(run: Waiting, other: Waiting, used: Mapping[int, int]) -> str:
    """Return the first rule of the order that puts `other` before `run`."""
    if other.priority > run.priority:
        return "higher priority"
    theirs, own = used.get(other.owner_uid, 0), used.get(run.owner_uid, 0)
    if theirs < own:
        return "its owner uses fewer CPUs"
    if theirs == own and other.submit_order < run.submit_order:
        return "submitted earlier"
    # both have the same priority, and the runs that start before them change the shares of the owners
    return "its owner has a smaller share after earlier starts"


def _changes(run: Waiting, probe: Queue, snapshot: Snapshot) -> list[list[Json]]:
    """Return alternatives that each start the run now, smallest first: its priority, its size, other runs.

    Necessary changes (release it, skip its back-off, ask for fewer GPUs) are part of each alternative.
    """
    needed: list[Json] = []
    if run.held:
        needed.append({"change": "release", "text": "release it"})
    if run.not_before is not None and run.not_before > snapshot.now:
        needed.append({"change": "begin", "text": "skip its back-off"})
    if run.mandatory and run.gpus > snapshot.capacity.gpu_slots_total:
        run = replace(run, gpus=snapshot.capacity.gpu_slots_total)
        needed.append(_size_step("gpus", "GPU", run.gpus))
    run = replace(run, held=False, not_before=None)
    if needed and _starts(run, probe, snapshot):
        return [needed]
    found = []
    for step in (_raise_priority, _shrink, _end_holders):
        steps = step(run, probe, snapshot)
        if steps:
            found.append(_merged(needed + steps))
    if not found:
        first = replace(run, priority=min(_highest_priority(probe, snapshot) + 1, MAX_PRIORITY))
        steps = _end_holders(first, probe, snapshot) or _shrink(first, probe, snapshot)
        if steps and first.priority > run.priority:
            found.append(_merged([*needed, _priority_step(first.priority), *steps]))
    return found


def _merged(steps: Sequence[Json]) -> list[Json]:
    """Return the steps with only the last change of each kind and run."""
    return list({(step["change"], step.get("run_id")): step for step in steps}.values())


def _raise_priority(run: Waiting, probe: Queue, snapshot: Snapshot) -> list[Json]:
    levels = sorted({waiting.priority + 1 for waiting in probe})
    higher = [level for level in levels if run.priority < level <= MAX_PRIORITY]
    priority = _first_sufficient(higher, lambda level: _starts(replace(run, priority=level), probe, snapshot))
    return [] if priority is None else [_priority_step(priority)]


def _shrink(run: Waiting, probe: Queue, snapshot: Snapshot) -> list[Json]:
    """Return the largest smaller request that starts: fewer CPUs, else fewer GPUs, else both."""
    cpus = cpus_due(run.cpus, snapshot.capacity)
    fewer_cpus = range(cpus - 1, 0, -1)
    fewer_gpus = range(gpus_due(run.gpus, snapshot.capacity) - 1, -1, -1)
    most_cpus = _first_sufficient(fewer_cpus, lambda n: _starts(replace(run, cpus=n), probe, snapshot))
    if most_cpus is not None:
        return [_size_step("cpus", "CPU", most_cpus)]
    most_gpus = _first_sufficient(fewer_gpus, lambda n: _starts(replace(run, gpus=n), probe, snapshot))
    if most_gpus is not None:
        return [_size_step("gpus", "GPU", most_gpus)]
    both = _first_sufficient(fewer_gpus, lambda n: _starts(replace(run, cpus=1, gpus=n), probe, snapshot))
    if both is None:
        return []
    least = replace(run, gpus=both)
    most = _first_sufficient(fewer_cpus, lambda n: _starts(replace(least, cpus=n), probe, snapshot))
    return [] if most is None else [_size_step("cpus", "CPU", most), _size_step("gpus", "GPU", both)]


def _end_holders(run: Waiting, probe: Queue, snapshot: Snapshot) -> list[Json]:
    """Return the smallest holder whose end suffices, else a minimal set of holders."""
    by_size = sorted(snapshot.holders, key=lambda holder: (len(holder.slots), holder.cpus, holder.run_id))
    for holder in by_size:
        if _starts(run, probe, _after_end_of(snapshot, [holder])):
            return [_end_step(holder)]
    ending = by_size
    if not _starts(run, probe, _after_end_of(snapshot, ending)):
        return []
    for holder in reversed(by_size):
        spared = [other for other in ending if other is not holder]
        if _starts(run, probe, _after_end_of(snapshot, spared)):
            ending = spared
    return [_end_step(holder) for holder in ending]


def _after_end_of(snapshot: Snapshot, ended: Sequence[Holder]) -> Snapshot:
    capacity, used = snapshot.capacity, dict(snapshot.used)
    for holder in ended:
        capacity = capacity.plus(holder.grant)
        used[holder.owner_uid] = max(0, used.get(holder.owner_uid, 0) - holder.cpus)
    return replace(snapshot, capacity=capacity, used=used)


def _starts(run: Waiting, probe: Queue, snapshot: Snapshot) -> bool:
    """Return whether the next plan starts `run`, which replaces the run of that id in `probe`."""
    before = probe.get(run.run_id)
    probe.put(run)
    started = any(
        one.run.run_id == run.run_id and one.grant is not None
        for one in probe.consider(snapshot.capacity, snapshot.used, snapshot.now)
    )
    if before is not None:
        probe.put(before)
    return started


def _first_sufficient(candidates: Sequence[int], is_enough: Callable[[int], bool]) -> int | None:
    """Return the first sufficient candidate, by bisection: all after it are sufficient too."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if is_enough(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


def _highest_priority(probe: Queue, snapshot: Snapshot) -> int:
    order = probe.order(snapshot.capacity, snapshot.used, snapshot.now)
    return order[0].priority if order else 0


def _owner(run: Waiting, snapshot: Snapshot) -> str:
    return snapshot.owners.get(run.owner_uid, str(run.owner_uid))


def _named_holder(holder: Holder) -> Json:
    named = {"run_id": holder.run_id, "name": holder.name, "owner": holder.owner}
    return {**named, "cpus": holder.cpus, "slots": list(holder.slots)}


def _priority_step(priority: int) -> Json:
    return {"change": "priority", "text": f"raise its priority to {priority}", "priority": priority}


def _size_step(resource: str, noun: str, count: int) -> Json:
    return {"change": resource, "text": f"ask for {counted(count, noun)}", resource: count}


def _end_step(holder: Holder) -> Json:
    text = f"{holder.name} of {holder.owner} ends"
    return {"change": "end", "text": text, "run_id": holder.run_id, "owner": holder.owner}
