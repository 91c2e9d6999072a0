"""Notifications to the service manager while the daemon serves: readiness, status line, watchdog."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from mosaicd.clock import Clock
from mosaicd.host.systemd import Notifier
from mosaicd.store.registry import Committed, Registry

#: The delay of the status line after a commit.
STATUS_DELAY_S = 0.2


class Supervision:
    """Notify the service manager of readiness, of the runs and of health; without one, do nothing."""

    def __init__(self, notifier: Notifier, registry: Registry, clock: Clock) -> None:
        self._notifier = notifier
        self._registry = registry
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Report that the daemon is ready, and keep the status line up to date from now on."""
        self._registry.subscribe(self._follow_commits)
        self._notifier.ready(self.status_line())

    def status_line(self) -> str:
        """Return how many runs are in which state."""
        live = self._registry.live.values()
        counts = Counter(str(run.state) for run in live)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        noun = "run" if len(live) == 1 else "runs"
        return f"{len(live)} live {noun}" + (f": {states}" if states else "")

    def _follow_commits(self, batch: Sequence[Committed]) -> None:
        """Update the status line after a short delay, because counting all live runs is slow."""
        del batch
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(STATUS_DELAY_S, self._update_status)

    def _update_status(self) -> None:
        self._timer = None
        self._notifier.status(self.status_line())

    async def feed_watchdog(self) -> None:
        """Send watchdog messages while the registry's writer works."""
        await self._notifier.watch(self._is_healthy)

    async def exercise_writer(self) -> None:
        """Flush the writer regularly, so that the watchdog detects a writer that hangs."""
        while self._notifier.watchdog_s is not None:
            await self._registry.flush()
            await asyncio.sleep(self._notifier.watchdog_s / 4)

    def _is_healthy(self) -> bool:
        limit_s = self._notifier.watchdog_s
        return limit_s is None or self._clock.mono() - self._registry.last_batch_mono() < limit_s
