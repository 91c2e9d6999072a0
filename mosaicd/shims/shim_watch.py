"""Watch for shims that live and send nothing: they are suspended, or hang in a system call.

A working shim sends a message every few seconds.  If a living shim is silent for long, it does not read the
worker's output, enforce its limits or stop it.

Note: silence is counted in checks and not by the clock, because a suspended daemon has not read its messages
yet.
"""

import asyncio
from collections.abc import Callable

from mosaicd.core.run import Run
from mosaicd.protocol.states import State
from mosaicd.shims.shims import Shims
from mosaicd.store.registry import Registry

#: The number of checks in the longest allowed silence.
MOST_SILENT_CHECKS = 6


class ShimWatch:
    """Call `on_silent(run)` once a run's living shim has sent nothing for `silence_s`."""

    def __init__(
        self, registry: Registry, shims: Shims, silence_s: float, on_silent: Callable[[Run], None]
    ) -> None:
        self._registry = registry
        self._shims = shims
        self._silence_s = silence_s
        self._on_silent = on_silent

    async def run(self) -> None:
        """Check all shims at equal intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._silence_s / MOST_SILENT_CHECKS)
            self.check()

    def check(self) -> None:
        """Count a check for every run that a shim serves, and report the shims that are silent too long."""
        for run in list(self._registry.live.values()):
            if not run.is_holding or run.state is State.HSHK:  # a handshake has its own deadline
                continue
            if self._shims.count_silent_check(run.run_id, run.attempt) > MOST_SILENT_CHECKS:
                self._on_silent(run)
