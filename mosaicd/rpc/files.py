"""Open the logs of attempts safely, although the run's owner can change the directory of an attempt.

Files are opened relative to directory descriptors and never through a link.  Only regular files of the owner
or of the daemon's user are read.  A few threads do this, so a disk that hangs delays only clients that read
logs.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from aiofiles.os import wrap

from mosaicd.core.run import Run
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import Unavailable
from mosaicd.protocol.records.leftovers import Leftovers
from mosaicd.rpc.segments import AttemptLog
from mosaicd.rundirs.attempt_files import read_leftovers
from mosaicd.rundirs.directories import RunDirs
from mosaicd.safe_files import open_directory, open_regular

THREADS = 4


class Files:
    """Open the logs of attempts, in a few threads of its own."""

    def __init__(self, rundirs: RunDirs) -> None:
        self._rundirs = rundirs
        self.pool = ThreadPoolExecutor(THREADS, "files")

    async def leftovers(self, run: Run) -> Leftovers:
        """Return the leftovers of the newest attempt; raise Unavailable if leftovers.json is refused."""
        run_dir = self._rundirs.path(run.run_id)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self.pool, read_leftovers, run_dir, run.attempt, run.owner_uid
            )
        except OSError as error:
            why = f"{rundir.LEFTOVERS} of attempt {run.attempt} cannot be read: {error.strerror}"
            raise Unavailable(why) from error

    @asynccontextmanager
    async def attempt_log(self, run: Run, attempt: int, name: str) -> AsyncIterator[AttemptLog | None]:
        """Yield an open log of an attempt; None if it does not exist yet.

        Raises Unavailable if it is refused.
        """
        owners = (run.owner_uid, os.getuid())
        names = (self._rundirs.path(run.run_id), rundir.attempt_name(attempt), name)
        opening = asyncio.ensure_future(_open(*names, owners, self.pool, executor=self.pool))
        try:
            output: AttemptLog = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            raise Unavailable(f"{name} of attempt {attempt} cannot be read: {error.strerror}") from error
        try:
            yield output
        finally:
            output.close()


def _close_opened(opening: "asyncio.Future[AttemptLog]") -> None:
    """Close a log that was opened for a cancelled caller."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open_carefully(
    run_dir: Path, attempt: str, name: str, owners: tuple[int, ...], pool: ThreadPoolExecutor
) -> AttemptLog:
    """Return the log; raise OSError unless the file is a regular file of one of `owners`."""
    outer = open_directory(run_dir)
    try:
        inner = open_directory(attempt, outer)
    finally:
        os.close(outer)
    try:
        return AttemptLog(inner, name, partial(open_regular, parent=inner, owners=owners), pool)
    except BaseException:
        os.close(inner)
        raise


# Only `wrap` of aiofiles is used: its file objects need two calls of a thread for each read, and stay open if
# a caller is cancelled during a read.
_open = wrap(_open_carefully)
