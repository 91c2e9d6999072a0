"""Read the logs of attempts, from directories that the run's owner can change: with distrust, never blocking.

Opened relative to directory descriptors, through no link, only regular files of the owner or of ours,
and read in a few threads of their own, so that a dead disk delays readers of logs and no other client.
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
from mosaicd.rpc.segments import Output
from mosaicd.rundirs.directories import RunDirs
from mosaicd.safe_files import open_directory, open_regular

THREADS = 4


class Files:
    """Opens and reads the logs of attempts, in a few threads of its own."""

    def __init__(self, rundirs: RunDirs) -> None:
        self._rundirs = rundirs
        self.pool = ThreadPoolExecutor(THREADS, "files")

    @asynccontextmanager
    async def attempt_log(self, run: Run, attempt: int, name: str) -> AsyncIterator[Output | None]:
        """Open a log of an attempt; None if it does not exist yet, Unavailable if it cannot be trusted."""
        owners = (run.owner_uid, os.getuid())
        place = (self._rundirs.path(run.run_id), rundir.attempt_name(attempt), name)
        opening = asyncio.ensure_future(_open(*place, owners, self.pool, executor=self.pool))
        try:
            output: Output = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
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


def _close_unwanted(opening: "asyncio.Future[Output]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open_carefully(
    run_dir: Path, attempt: str, name: str, owners: tuple[int, ...], pool: ThreadPoolExecutor
) -> Output:
    """Return the log; OSError for anything but regular files of one of `owners`."""
    outer = open_directory(run_dir)
    try:
        inner = open_directory(attempt, outer)
    finally:
        os.close(outer)
    try:
        return Output(inner, name, partial(open_regular, parent=inner, owners=owners), pool)
    except BaseException:
        os.close(inner)
        raise


# aiofiles' way to a thread; its file objects would need two hops a read, and are not closed when a caller is
# cancelled in the middle of one.
_open = wrap(_open_carefully)
