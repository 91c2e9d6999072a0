"""Temporary directories of runs that have ended: what a shim could not remove is removed after it.

A shim removes its attempt's directory itself, and the launcher that of a shim that died before its tree was
empty.  What is left is the moment between: the run has ended, and its shim (with or without the launcher) was
killed just before it came to that.  A reader would get wrong: a name in /tmp proves nothing.  Only what is
named like an attempt of a run of ours that has ended, which is no shim's any more and of the same user, is
looked at (who else made one must not have us look), and the launcher removes it, as the run's user, once it
has found nothing of the run alive.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.rundirs.directories import RunDirs, held_attempts
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shims.launcher_client import LauncherClient

#: Between two looks, in seconds.
INTERVAL_S = 600.0
#: How many are asked about at a time: one look of the launcher at all processes answers for them.
TOGETHER = 50


class Temporaries:
    """Looks at the start, when runs of a daemon that was killed may have left some, and from time to time."""

    def __init__(self, registry: Registry, rundirs: RunDirs, launcher: "LauncherClient") -> None:
        self._registry = registry
        self._rundirs = rundirs
        self._launcher = launcher

    async def run(self) -> None:
        """Look, and look again, until cancelled."""
        while True:
            try:
                await self.clear()
            except OSError as error:  # no descriptor to be had now, say
                log.event(Catalogue.TEMP_DIRS_UNREAD, why=error)
            await asyncio.sleep(INTERVAL_S)

    async def clear(self) -> None:
        """Have removed what runs that have ended left."""
        found = await asyncio.to_thread(self._found)
        for start in range(0, len(found), TOGETHER):
            together = [one for one in found[start : start + TOGETHER] if one[0] not in self._registry.live]
            await asyncio.gather(
                *(self._launcher.check_tree(run_id, (None, None), attempt) for run_id, attempt in together)
            )

    def _found(self) -> list[tuple[str, int]]:
        """Return the attempts of our runs whose directories are there and in no shim's hand."""
        with os.scandir(rundir.TEMPORARY_BASE) as entries:
            found = [(tail, entry) for entry in entries if (tail := rundir.temporary_tail(entry.name))]
        if not found:
            return []
        runs = {run_id[-rundir.TAIL_LENGTH :]: run_id for run_id in self._rundirs.names()}
        ours = [(runs[tail], attempt, entry) for (tail, attempt), entry in found if tail in runs]
        return [(run_id, attempt) for run_id, attempt, entry in ours if self._is_left(run_id, attempt, entry)]

    def _is_left(self, run_id: str, attempt: int, entry: "os.DirEntry[str]") -> bool:
        if run_id in self._registry.live:
            return False
        run_dir = self._rundirs.path(run_id)
        try:
            owner_uid = os.lstat(rundir.attempt_dir(str(run_dir), attempt)).st_uid
            is_owners = entry.stat(follow_symlinks=False).st_uid == owner_uid
        except OSError:  # there was no such attempt, or it is gone by now, or closed
            return False
        return is_owners and entry.is_dir(follow_symlinks=False) and attempt not in held_attempts(run_dir)
