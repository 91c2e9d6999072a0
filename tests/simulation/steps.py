"""Random histories: a list of steps, made from a seed, and reduced if it fails.

The world skips a step that is not possible at its point, so any part of a history is a valid history.
"""

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Step(NamedTuple):
    """One step; `run` selects one of the live runs, `value` is the parameter of the step."""

    what: str
    run: int = 0
    value: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}(run={self.run}, value={self.value:g})"


#: step -> its weight, and the values that it may have.
WEIGHTS: dict[str, tuple[int, tuple[float, ...]]] = {
    "submit": (10, (1, 2, 3, 4, 9)),
    "submit_worker": (6, (1, 2, 3)),
    "pass_time": (20, (0.1, 1, 10, 60, 600, 3600, 36000)),
    "shim": (60, (0,)),
    "exit": (12, (0, 0, 0, 1, 7, 200, -9, -11)),
    "stop": (5, (0, 5)),
    "pause": (5, (0, 1, 2)),
    "resume": (6, (0,)),
    "hold": (2, (0,)),
    "release": (3, (0,)),
    "set_priority": (2, (-5, 0, 5)),
    "repeat_status": (5, (0,)),
    "check_previous": (3, (0,)),
    "kill_shim": (2, (0,)),
    "stubborn": (1, (0,)),
    "silence_shim": (1, (0,)),
    "crash": (3, (0,)),
    "reboot": (1, (0,)),
    "suspend": (1, (3600, 86400)),
    "set_clock": (2, (-3600, -60, 60)),
}


def history(seed: int, length: int) -> list[Step]:
    """Return the random steps of a seed."""
    rng = random.Random(seed)
    names = list(WEIGHTS)
    weights = [WEIGHTS[name][0] for name in names]
    return [
        Step(name, rng.randrange(1000), rng.choice(WEIGHTS[name][1]))
        for name in rng.choices(names, weights, k=length)
    ]


async def shortest(steps: list[Step], is_failing: Callable[[list[Step]], Awaitable[bool]]) -> list[Step]:
    """Return a shorter history that still fails, in which every step is needed (greedy halving)."""
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
