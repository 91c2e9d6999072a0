"""The plan of a drill: the events of each life of the daemon, drawn from the seed and the life's number.

Note: the complete plan of a life is drawn before the life begins, so a slow machine does not change the plan
of the next life.
"""

import random
from dataclasses import dataclass

from mosaicd import crash_points
from tests.faults.squeeze import LEFT_BYTES, LIMITS_BYTES

#: How long a daemon with a crash point may live before the drill kills it.
PATIENCE_S = 0.4
FORKED_PATIENCE_S = 0.25
#: The share of lives that begin to count at the daemon's first answer; else a slow machine sees only starts.
ANSWERED = 0.7
ANSWER_S = 3.0
#: Such a life continues until that many more requests are answered, or until its time limit.
MOST_ANSWERS = 25
MOST_LIFE_S = 1.0


@dataclass(frozen=True)
class FailingWrites:
    """A time in which writes fail: of which process, after how many bytes, when and for how long."""

    whose: str  # disk, daemon, launcher or shim
    leave_bytes: int
    after_s: float
    holds_s: float
    outlasts: bool  # the limit is still there when the next daemon starts
    pick: float  # selects one of the live shims


@dataclass(frozen=True)
class Life:
    """One life of a daemon: it ends at a crash point, or after a kill of the launcher or a shim."""

    number: int
    is_answered: bool  # the time counts from the first answer to a client
    answers: int  # the number of further answers to wait for
    crash_at: str | None
    patience_s: float
    victim: str | None  # launcher or shim
    kill_after_s: float
    linger_s: float
    pick: float
    failing_writes: FailingWrites | None


def life(seed: str, number: int) -> Life:
    """Return the plan of life `number`."""
    rng = random.Random(f"{seed}/life/{number}")
    kind = rng.random()
    point = rng.choice(sorted(crash_points.POINTS))
    counts = range(1, 21) if point.startswith("record.") else (1, 1, 2, 3)
    spec = f"{point}:{rng.choice(counts)}"
    is_answered = rng.random() < ANSWERED
    return Life(
        number=number,
        is_answered=is_answered,
        answers=rng.randrange(MOST_ANSWERS) if is_answered else 0,
        crash_at=spec if kind < 0.55 else None,
        patience_s=FORKED_PATIENCE_S if crash_points.is_forked(spec) else PATIENCE_S,
        victim="launcher" if 0.55 <= kind < 0.7 else "shim" if 0.7 <= kind < 0.88 else None,
        kill_after_s=rng.uniform(0, 0.25),
        linger_s=rng.uniform(0, 0.1),
        pick=rng.random(),
        failing_writes=_failing_writes(rng) if rng.random() < 0.12 else None,
    )


def _failing_writes(rng: random.Random) -> FailingWrites:
    whose = rng.choice(("disk", "disk", "daemon", "launcher", "shim"))
    return FailingWrites(
        whose=whose,
        leave_bytes=rng.choice(LEFT_BYTES if whose == "disk" else LIMITS_BYTES),
        after_s=rng.uniform(0.05, 0.3),
        holds_s=rng.uniform(0.02, 0.3),
        outlasts=rng.random() < 0.3,
        pick=rng.random(),
    )
