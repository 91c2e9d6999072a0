"""Who gets which slots: CPUs are counted, GPUs are numbered and owned one by one.

What a reader would get wrong: too many CPUs is no fault (the run is granted the machine, visibly), too
many *mandatory* GPUs is one, at submit; and `mandatory: false` means "take what the machine has", not
"take what happens to be free": a training asked to use four GPUs waits for its four where there are
four, because starting it on one would cost its owner days, and only he can know that.
"""

from dataclasses import dataclass, replace
from typing import Self

from mosaicd.protocol.errors import CapacityImpossible


@dataclass(frozen=True, slots=True)
class Grant:
    """CPUs by number, GPU slots by index, ascending."""

    cpus: int
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Withheld:
    """What a run that was set aside may still use: nobody's until it is known that nothing of it lives.

    `pids`: processes of it that were found last, its shims too; none before the first look.
    """

    run_id: str
    owner: str
    cpus: int = 0
    slots: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()

    @property
    def grant(self) -> Grant:
        """What nobody is given meanwhile."""
        return Grant(self.cpus, self.slots)

    def summary(self) -> str:
        """Return in one sentence what stays reserved, and for which run."""
        gpus = f"GPU slot{'' if len(self.slots) == 1 else 's'} {', '.join(map(str, self.slots))}"
        parts = ((self.cpus, counted(self.cpus, "CPU")), (self.slots, gpus))
        held = " and ".join(words for some, words in parts if some)
        alive = f"are alive (pid {', '.join(map(str, self.pids))})" if self.pids else "may be alive"
        found = f"the record of run {self.run_id} is set aside, and processes of it {alive}"
        return f"{found}; its {held} stay reserved" if held else found


@dataclass(frozen=True, slots=True)
class Capacity:
    """The machine and what runs hold of it; GPU slots are numbered 0..gpu_slots_total-1.

    What is withheld counts as used; `*_withheld` say how much of what is used that is.
    """

    cpus_total: int
    cpus_used: int = 0
    gpu_slots_total: int = 0
    gpu_slots_used: frozenset[int] = frozenset()
    cpus_withheld: int = 0
    gpu_slots_withheld: frozenset[int] = frozenset()

    @property
    def cpus_free(self) -> int:
        """CPUs that nobody holds; never negative, also where the machine was shrunk below its runs."""
        return max(0, self.cpus_total - self.cpus_used)

    @property
    def gpus_free(self) -> tuple[int, ...]:
        """Indexes of the GPU slots that nobody holds, ascending."""
        return tuple(slot for slot in range(self.gpu_slots_total) if slot not in self.gpu_slots_used)

    def less(self, grant: Grant) -> Self:
        """Return what is left after a grant."""
        used = self.gpu_slots_used | set(grant.slots)
        return replace(self, cpus_used=self.cpus_used + grant.cpus, gpu_slots_used=used)

    def plus(self, grant: Grant) -> Self:
        """Return what there is once a grant is given back."""
        used = self.gpu_slots_used - set(grant.slots)
        return replace(self, cpus_used=max(0, self.cpus_used - grant.cpus), gpu_slots_used=used)


def cpus_due(requested: int, capacity: Capacity) -> int:
    """Return the CPUs that a request is granted here: what it asks for, at most the machine."""
    return min(requested, max(1, capacity.cpus_total))


def gpus_due(requested: int, capacity: Capacity) -> int:
    """Return the GPU slots that a request is granted here: what it asks for, at most the machine's."""
    return min(requested, capacity.gpu_slots_total)


def counted(count: int, noun: str) -> str:
    """Return `1 CPU`, `2 CPUs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def check_possible(gpus: int, mandatory: bool, capacity: Capacity) -> None:
    """Raise CapacityImpossible where this machine could never give the mandatory GPUs."""
    if mandatory and gpus > capacity.gpu_slots_total:
        raise CapacityImpossible(
            f"it must have {counted(gpus, 'GPU')}; this machine has {capacity.gpu_slots_total}",
            requested=gpus,
            total=capacity.gpu_slots_total,
        )


def choose(cpus: int, gpus: int, mandatory: bool, capacity: Capacity) -> Grant | None:
    """Return the grant that a request gets now, lowest free GPU slots first; None where it has to wait.

    Mandatory GPUs beyond the machine (it lost some since the submit) wait for ever rather than run short.
    """
    if mandatory and gpus > capacity.gpu_slots_total:
        return None
    due_cpus, due_gpus = cpus_due(cpus, capacity), gpus_due(gpus, capacity)
    free = capacity.gpus_free
    if due_cpus > capacity.cpus_free or due_gpus > len(free):
        return None
    return Grant(due_cpus, free[:due_gpus])


def earmark(cpus: int, gpus: int, mandatory: bool, capacity: Capacity) -> Grant:
    """Return what of a blocked request can be put aside now, so that nobody behind it takes it away.

    Nothing for mandatory GPUs that the machine has no more: that run would hold up everybody for ever.
    """
    if mandatory and gpus > capacity.gpu_slots_total:
        return Grant(0)
    due = gpus_due(gpus, capacity)
    return Grant(min(cpus_due(cpus, capacity), capacity.cpus_free), capacity.gpus_free[:due])
