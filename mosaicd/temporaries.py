"""Temporary directories of runs that have ended: what a shim could not remove is removed after it.

A shim removes its attempt's directory itself, and the launcher that of a shim that died before its tree was
empty.  What is left is the moment between: the run has ended, and its shim (with or without the launcher) was
killed just before it came to that.  A reader would get wrong: a name in /tmp proves nothing.  Only what is
named like an attempt of a run of ours that has ended is looked at, and the launcher removes it, as the run's
user, once it has found nothing of the run alive.
"""

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from mosaicd.protocol import rundir
from mosaicd.rundirs import RunDirs
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shim_link import ShimLink

log = logging.getLogger(__name__)

#: Between two looks, in seconds.
INTERVAL_S = 600.0


class Temporaries:
    """Looks at the start, when runs of a daemon that was killed may have left some, and from time to time."""

    def __init__(self, registry: Registry, rundirs: RunDirs, shims: "ShimLink") -> None:
        self._registry = registry
        self._rundirs = rundirs
        self._shims = shims

    async def run(self) -> None:
        """Look, and look again, until cancelled."""
        while True:
            try:
                await self.clear()
            except OSError as error:  # no descriptor to be had now, say
                log.info("temporary directories that were left could not be looked at: %s", error)
            await asyncio.sleep(INTERVAL_S)

    async def clear(self) -> None:
        """Have removed what runs that have ended left."""
        for run_id, attempt in await asyncio.to_thread(self._found):
            if run_id not in self._registry.live:
                await self._shims.is_empty(run_id, (None, None), attempt)

    def _found(self) -> list[tuple[str, int]]:
        """Return the attempts of our runs whose directories are there, whatever became of them."""
        with os.scandir(rundir.TEMPORARY_BASE) as entries:
            found = [tail for entry in entries if (tail := rundir.temporary_tail(entry.name)) is not None]
        if not found:
            return []
        runs = {run_id[-rundir.TAIL_LENGTH :]: run_id for run_id in self._rundirs.names()}
        return [(runs[tail], attempt) for tail, attempt in found if tail in runs]
