"""Granting of slots: CPUs are counted, GPUs are numbered and held one by one.

Note: a request for more CPUs than the machine has is no error; the run gets all CPUs, and `show` prints the
grant.  A request for more *mandatory* GPUs than the machine has is an error at submit.  `mandatory: false`
means all GPUs that the machine has, not those that are free: a run that asks for four GPUs waits for four if
the machine has four, because a start on one GPU could cost its owner days.
"""

from dataclasses import dataclass, replace
from typing import Self

from mosaicd.protocol.errors import CapacityImpossible


@dataclass(frozen=True, slots=True)
class Grant:
    """The number of CPUs, and the indexes of GPU slots, ascending."""

    cpus: int
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Withheld:
    """The slots of a quarantined run; they stay reserved until no process of the run is alive.

    `pids`: the processes of the run at the last check, its shims included; empty before the first check.
    """

    run_id: str
    owner: str
    cpus: int = 0
    slots: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()

    @property
    def grant(self) -> Grant:
        """The slots that stay reserved."""
        return Grant(self.cpus, self.slots)

    def summary(self) -> str:
        """Return one sentence with the reserved slots and their run."""
        gpus = f"GPU slot{'' if len(self.slots) == 1 else 's'} {', '.join(map(str, self.slots))}"
        parts = ((self.cpus, counted(self.cpus, "CPU")), (self.slots, gpus))
        held = " and ".join(words for some, words in parts if some)
        alive = f"are alive (pid {', '.join(map(str, self.pids))})" if self.pids else "may be alive"
        found = f"run {self.run_id} is quarantined, and processes of it {alive}"
        return f"{found}; its {held} stay reserved" if held else found


@dataclass(frozen=True, slots=True)
class Capacity:
    """The slots of the machine and those that runs hold; GPU slots are numbered 0..gpu_slots_total-1.

    The slots of quarantined runs count as used; `*_withheld` counts them alone.
    """

    cpus_total: int
    cpus_used: int = 0
    gpu_slots_total: int = 0
    gpu_slots_used: frozenset[int] = frozenset()
    cpus_withheld: int = 0
    gpu_slots_withheld: frozenset[int] = frozenset()

    @property
    def cpus_free(self) -> int:
        """The number of free CPUs; never negative, also if runs hold more than the machine has now."""
        return max(0, self.cpus_total - self.cpus_used)

    @property
    def gpus_free(self) -> tuple[int, ...]:
        """The indexes of the free GPU slots, ascending."""
        return tuple(slot for slot in range(self.gpu_slots_total) if slot not in self.gpu_slots_used)

    def less(self, grant: Grant) -> Self:
        """Return the capacity after a grant."""
        used = self.gpu_slots_used | set(grant.slots)
        return replace(self, cpus_used=self.cpus_used + grant.cpus, gpu_slots_used=used)

    def plus(self, grant: Grant) -> Self:
        """Return the capacity after a grant is freed."""
        used = self.gpu_slots_used - set(grant.slots)
        return replace(self, cpus_used=max(0, self.cpus_used - grant.cpus), gpu_slots_used=used)


def cpus_due(requested: int, capacity: Capacity) -> int:
    """Return the CPUs for a request: the requested number, at most all CPUs of the machine."""
    return min(requested, max(1, capacity.cpus_total))


def gpus_due(requested: int, capacity: Capacity) -> int:
    """Return the number of GPU slots for a request: the requested number, at most all of the machine."""
    return min(requested, capacity.gpu_slots_total)


def counted(count: int, noun: str) -> str:
    """Return `1 CPU`, `2 CPUs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def check_possible(gpus: int, mandatory: bool, capacity: Capacity) -> None:
    """Raise CapacityImpossible if this machine has fewer GPUs than the mandatory ones."""
    if mandatory and gpus > capacity.gpu_slots_total:
        total = capacity.gpu_slots_total
        rule = f"this machine has {total}" if total else "mosaicd manages none ([gpus] static is 0)"
        raise CapacityImpossible(f"it requires {counted(gpus, 'GPU')}; {rule}", requested=gpus, total=total)


def choose(cpus: int, gpus: int, mandatory: bool, capacity: Capacity) -> Grant | None:
    """Return the grant for a request, lowest free GPU slots first; None if it has to wait.

    A request for more mandatory GPUs than the machine has now waits without end.
    """
    if mandatory and gpus > capacity.gpu_slots_total:
        return None
    due_cpus, due_gpus = cpus_due(cpus, capacity), gpus_due(gpus, capacity)
    free = capacity.gpus_free
    if due_cpus > capacity.cpus_free or due_gpus > len(free):
        return None
    return Grant(due_cpus, free[:due_gpus])


def earmark(cpus: int, gpus: int, mandatory: bool, capacity: Capacity) -> Grant:
    """Return the free slots to earmark for a blocked request, so that runs behind it do not take them.

    Nothing is earmarked if the machine has fewer GPUs than the mandatory ones: that run would block all
    others.
    """
    if mandatory and gpus > capacity.gpu_slots_total:
        return Grant(0)
    due = gpus_due(gpus, capacity)
    return Grant(min(cpus_due(cpus, capacity), capacity.cpus_free), capacity.gpus_free[:due])
