"""The time limit and the step limit of a run.

The time is monotonic, without the time in which the machine is suspended or the run is paused.  The shim
enforces the limits, so they work while the daemon is down.
"""

TIME_LIMIT = "time_limit"
STEP_LIMIT = "step_limit"


class RunLimits:
    """The limits of one attempt; time counts from `start` on."""

    def __init__(self, time_limit_s: float | None, max_steps: int | None, steps_before: int = 0) -> None:
        """`steps_before`: step records of earlier attempts, added if the worker reports no global count."""
        self._time_limit_s = time_limit_s
        self._max_steps = max_steps
        self._steps_before = steps_before
        self._ran_s = 0.0
        self._running_since: float | None = None

    def start(self, now: float) -> None:
        """Start or continue the time."""
        if self._running_since is None:
            self._running_since = now

    def pause(self, now: float) -> None:
        """Stop the time: the run is paused."""
        self._ran_s = self.ran_s(now)
        self._running_since = None

    def ran_s(self, now: float) -> float:
        """Return how long the run has run, in seconds without pauses."""
        return self._ran_s + (now - self._running_since if self._running_since is not None else 0.0)

    def next_at(self) -> float | None:
        """Return when the time limit will be reached; None without a limit or during a pause."""
        if self._time_limit_s is None or self._running_since is None:
            return None
        return self._running_since + self._time_limit_s - self._ran_s

    def reached(self, now: float, steps: int | None, are_global: bool = False) -> str | None:
        """Return the kind of the limit that is reached, or None.

        `are_global`: `steps` is the worker's own count, which includes earlier attempts.
        """
        done = (steps or 0) + (0 if are_global else self._steps_before)
        if self._max_steps is not None and steps is not None and done >= self._max_steps:
            return STEP_LIMIT
        at = self.next_at()
        return TIME_LIMIT if at is not None and now >= at else None
