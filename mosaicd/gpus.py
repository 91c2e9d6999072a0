"""Which GPU slots this machine has.  Which run gets which is decided in core, never here.

So far an inventory is what the settings say and nothing is probed: `probed` is False, and a slot is a
number that a run finds in CUDA_VISIBLE_DEVICES.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mosaicd.config import Settings


@dataclass(frozen=True, slots=True)
class Gpu:
    """One slot; `index` is the device's number in PCI bus order."""

    index: int
    name: str = "configured"


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPU slots of this machine, by index."""

    gpus: tuple[Gpu, ...]
    probed: bool = False

    @property
    def slots(self) -> tuple[int, ...]:
        """Every slot, in order."""
        return tuple(gpu.index for gpu in self.gpus)

    def free(self, taken: Iterable[int]) -> tuple[int, ...]:
        """Return the slots that are not in `taken`, in order."""
        busy = set(taken)
        return tuple(slot for slot in self.slots if slot not in busy)


def inventory(settings: Settings) -> Inventory:
    """Return the slots that `[gpus] static` declares: 0 to N-1."""
    return Inventory(tuple(Gpu(index) for index in range(settings.gpus.static)))
