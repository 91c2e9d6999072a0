"""What the drill does in each life of the daemon: drawn from the seed and the life's number, all at once.

Note: nothing is drawn while a life goes on, so what a slow machine does to one life
changes nothing in the choices of the next.
"""

import random
from dataclasses import dataclass

from mosaicd import crash_points
from tests.faults.squeeze import LEFT_BYTES, LIMITS_BYTES

#: How long a daemon with a crash point may live before it is killed anyway.
PATIENCE_S = 0.4
FORKED_PATIENCE_S = 0.25
#: Most lives are counted from the daemon's first answer, or a slow machine would see nothing but starts.
ANSWERED = 0.7
ANSWER_S = 3.0
#: And they go on until so many more were answered, though not for ever.
MOST_ANSWERS = 25
MOST_LIFE_S = 1.0


@dataclass(frozen=True)
class Trouble:
    """Writes that fail for a while: whose, how much still goes, when, how long."""

    whose: str  # disk, daemon, launcher or shim
    leave_bytes: int
    after_s: float
    holds_s: float
    outlasts: bool  # the next daemon starts into it
    pick: float  # which shim, of those there are


@dataclass(frozen=True)
class Life:
    """One life of a daemon: it ends at a crash point, or after a kill of the launcher or a shim."""

    number: int
    is_answered: bool  # it is counted from the first answer to a client
    answers: int  # that many more are waited for
    crash_at: str | None
    patience_s: float
    victim: str | None  # launcher or shim
    kill_after_s: float
    linger_s: float
    pick: float
    trouble: Trouble | None


def life(seed: str, number: int) -> Life:
    """Return what happens in the life of that number."""
    dice = random.Random(f"{seed}/life/{number}")
    kind = dice.random()
    point = dice.choice(sorted(crash_points.POINTS))
    counts = range(1, 21) if point.startswith("record.") else (1, 1, 2, 3)
    spec = f"{point}:{dice.choice(counts)}"
    is_answered = dice.random() < ANSWERED
    return Life(
        number=number,
        is_answered=is_answered,
        answers=dice.randrange(MOST_ANSWERS) if is_answered else 0,
        crash_at=spec if kind < 0.55 else None,
        patience_s=FORKED_PATIENCE_S if crash_points.is_forked(spec) else PATIENCE_S,
        victim="launcher" if 0.55 <= kind < 0.7 else "shim" if 0.7 <= kind < 0.88 else None,
        kill_after_s=dice.uniform(0, 0.25),
        linger_s=dice.uniform(0, 0.1),
        pick=dice.random(),
        trouble=_trouble(dice) if dice.random() < 0.12 else None,
    )


def _trouble(dice: random.Random) -> Trouble:
    whose = dice.choice(("disk", "disk", "daemon", "launcher", "shim"))
    return Trouble(
        whose=whose,
        leave_bytes=dice.choice(LEFT_BYTES if whose == "disk" else LIMITS_BYTES),
        after_s=dice.uniform(0.05, 0.3),
        holds_s=dice.uniform(0.02, 0.3),
        outlasts=dice.random() < 0.3,
        pick=dice.random(),
    )
