"""The run's own limits: how long it may run and how many steps it may take.

The clock is monotonic (it stops with the machine) and stands still while the run is paused.  Kept in
the shim so that a limit acts while the daemon is down.
"""

TIME_LIMIT = "time_limit"
STEP_LIMIT = "step_limit"


class RunLimits:
    """Limits of one attempt; nothing counts before `start`."""

    def __init__(self, time_limit_s: float | None, max_steps: int | None, steps_before: int = 0) -> None:
        """`steps_before`: step records of earlier attempts, counted where the worker has no count itself."""
        self._time_limit_s = time_limit_s
        self._max_steps = max_steps
        self._steps_before = steps_before
        self._ran_s = 0.0
        self._running_since: float | None = None

    def start(self, now: float) -> None:
        """The run goes (on)."""
        if self._running_since is None:
            self._running_since = now

    def pause(self, now: float) -> None:
        """The run stands still."""
        self._ran_s = self.ran_s(now)
        self._running_since = None

    def ran_s(self, now: float) -> float:
        """How long the run has run, pauses left out."""
        return self._ran_s + (now - self._running_since if self._running_since is not None else 0.0)

    def next_at(self) -> float | None:
        """When the time limit passes, if nothing changes."""
        if self._time_limit_s is None or self._running_since is None:
            return None
        return self._running_since + self._time_limit_s - self._ran_s

    def passed(self, now: float, steps: int | None, are_global: bool = False) -> str | None:
        """Return the kind of the limit that has been reached, if one has.

        `are_global`: `steps` is the worker's own count, which goes on over attempts.
        """
        done = (steps or 0) + (0 if are_global else self._steps_before)
        if self._max_steps is not None and steps is not None and done >= self._max_steps:
            return STEP_LIMIT
        at = self.next_at()
        return TIME_LIMIT if at is not None and now >= at else None
