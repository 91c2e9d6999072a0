"""What may happen in a simulated life: a list of steps, made from a seed, and cut down when one fails.

A step that makes no sense where it comes is skipped by the world, so any sub-list of a history is a
history: that is what makes cutting down possible.
"""

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Step(NamedTuple):
    """One thing that happens; `run` picks among the runs there are, `value` is the step's own."""

    what: str
    run: int = 0
    value: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}(run={self.run}, value={self.value:g})"


#: step -> how often, and the values it may have.
WEIGHTS: dict[str, tuple[int, tuple[float, ...]]] = {
    "submit": (10, (1, 2, 3, 4, 9)),
    "submit_worker": (6, (1, 2, 3)),
    "pass": (20, (0.1, 1, 10, 60, 600, 3600, 36000)),
    "shim": (60, (0,)),
    "exit": (12, (0, 0, 0, 1, 7, 200, -9, -11)),
    "stop": (5, (0, 5)),
    "pause": (5, (0, 1, 2)),
    "resume": (6, (0,)),
    "hold": (2, (0,)),
    "release": (3, (0,)),
    "set_priority": (2, (-5, 0, 5)),
    "say_again": (5, (0,)),
    "late": (3, (0,)),
    "kill_shim": (2, (0,)),
    "stubborn": (1, (0,)),
    "mute": (1, (0,)),
    "crash": (3, (0,)),
    "reboot": (1, (0,)),
    "suspend": (1, (3600, 86400)),
    "set_clock": (2, (-3600, -60, 60)),
}


def history(seed: int, length: int) -> list[Step]:
    """Return the steps of a seed."""
    luck = random.Random(seed)
    names = list(WEIGHTS)
    weights = [WEIGHTS[name][0] for name in names]
    return [
        Step(name, luck.randrange(1000), luck.choice(WEIGHTS[name][1]))
        for name in luck.choices(names, weights, k=length)
    ]


async def shortest(steps: list[Step], is_failing: Callable[[list[Step]], Awaitable[bool]]) -> list[Step]:
    """Return a history from which no step can be taken without its ceasing to fail (greedy halving)."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            without = steps[:start] + steps[start + size :]
            if await is_failing(without):
                steps = without
            else:
                start += size
        size //= 2
    return steps
