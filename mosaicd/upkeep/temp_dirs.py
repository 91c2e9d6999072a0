"""Remove temporary directories of ended runs that their shims could not remove.

A shim removes the temporary directory of its attempt, and the launcher removes that of a dead shim when the
tree is empty.  One case remains: the shim was killed after the end of the run and before the removal.

Note: a name in /tmp proves nothing, because every user can make one.  The launcher is asked about a directory
only if its name is that of an attempt of an ended run of this daemon, it belongs to the run's user, and no
shim holds the attempt.  The launcher removes it once it has found no living process of the run.
"""

import asyncio
import os

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.store.registry import Registry

#: The time between two rounds.
INTERVAL_S = 600.0
#: The launcher answers this many questions from one survey of all processes.
ASKED_TOGETHER = 50


class TempDirs:
    """Remove temporary directories of ended runs, at the start of the daemon and then every INTERVAL_S."""

    def __init__(self, registry: Registry, rundirs: RunDirs, launcher: LauncherClient) -> None:
        self._registry = registry
        self._rundirs = rundirs
        self._launcher = launcher

    async def run(self) -> None:
        """Remove temporary directories of ended runs repeatedly, until cancelled."""
        while True:
            try:
                await self.remove_unused()
            except OSError as error:  # for example no free descriptor
                log.event(Catalogue.TEMP_DIRS_UNREAD, why=error)
            await asyncio.sleep(INTERVAL_S)

    async def remove_unused(self) -> None:
        """Have the launcher remove the temporary directories of ended runs."""
        unused = await asyncio.to_thread(self._list_unused)
        for start in range(0, len(unused), ASKED_TOGETHER):
            together = [
                (run_id, attempt)
                for run_id, attempt in unused[start : start + ASKED_TOGETHER]
                if run_id not in self._registry.live
            ]
            await asyncio.gather(
                *(self._launcher.check_tree(run_id, (None, None), attempt) for run_id, attempt in together)
            )

    def _list_unused(self) -> list[tuple[str, int]]:
        """Return the attempts of ended runs whose temporary directories exist and have no living shim."""
        with os.scandir(rundir.TEMPORARY_BASE) as entries:
            found = [(tail, entry) for entry in entries if (tail := rundir.parse_temporary_name(entry.name))]
        if not found:
            return []
        runs = {run_id[-rundir.TAIL_LENGTH :]: run_id for run_id in self._rundirs.names()}
        ours = [(runs[tail], attempt, entry) for (tail, attempt), entry in found if tail in runs]
        return [
            (run_id, attempt) for run_id, attempt, entry in ours if self._is_unused(run_id, attempt, entry)
        ]

    def _is_unused(self, run_id: str, attempt: int, entry: "os.DirEntry[str]") -> bool:
        if run_id in self._registry.live:
            return False
        run_dir = self._rundirs.path(run_id)
        try:
            owner_uid = os.lstat(rundir.attempt_dir(str(run_dir), attempt)).st_uid
            is_owners = entry.stat(follow_symlinks=False).st_uid == owner_uid
        except OSError:  # no such attempt, or its directory is removed or not readable
            return False
        return is_owners and entry.is_dir(follow_symlinks=False) and attempt not in held_attempts(run_dir)
