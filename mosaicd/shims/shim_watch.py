"""Shims that live and say nothing: stopped, or stuck in a system call that does not return.

A shim that works says something every few seconds, so a long silence of a living one means that nobody
drains, limits or stops its worker.  What a reader would get wrong: silence is counted in looks and not by
the clock, so a daemon that stood still itself does not take what it has not read yet for silence.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from mosaicd.core.run import Run
from mosaicd.protocol.states import State
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shims.shim_link import ShimLink

#: Looks in the time that a shim may be silent.
LOOKS = 6


class ShimWatch:
    """Call `on_silent(run)` once a run's living shim has said nothing for `silence_s`."""

    def __init__(
        self, registry: Registry, shims: "ShimLink", silence_s: float, on_silent: Callable[[Run], None]
    ) -> None:
        self._registry = registry
        self._shims = shims
        self._silence_s = silence_s
        self._on_silent = on_silent
        self._silent: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._silence_s / LOOKS)
            self.look()

    def look(self) -> None:
        """Count a look for every shim that was not heard of since the last one."""
        silent = {
            (run.run_id, run.attempt): self._silent.get((run.run_id, run.attempt), 0) + 1
            for run in self._registry.live.values()
            if run.is_holding
            and run.state is not State.HSHK  # there the handshake has its own deadline
            and self._shims.is_silent(run.run_id, run.attempt)
        }
        self._silent = silent
        for (run_id, _), looks in silent.items():
            if looks > LOOKS:
                self._on_silent(self._registry.live[run_id])
