"""Reading what lies in an attempt's directory, which is its owner's to fill: with distrust, never blocking.

Opened relative to directory descriptors, through no link, only regular files of the owner or of ours,
and read in a few threads of their own, so that a dead disk holds up readers of logs and nobody else.
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiofiles.os import wrap

from mosaicd.core.run import Run
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import Unavailable

if TYPE_CHECKING:
    from mosaicd.rpc.context import Services

THREADS = 4
READ_BYTES = 64 << 10
_SAFE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Files:
    """The threads that read."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS, "files")


class Tail:
    """One open file that grows.  Its descriptor is closed only when no thread is using it."""

    def __init__(self, descriptor: int, pool: ThreadPoolExecutor) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` (<= 64 KiB) bytes from `offset`; fewer at the end, b"" behind it."""
        work = _pread(self._descriptor, min(size, READ_BYTES), offset, executor=self._pool)
        self._reading = asyncio.ensure_future(work)
        return await asyncio.shield(self._reading)

    def size(self) -> int:
        """Return how long the file is now."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file, at once or when the thread that still reads it has come back."""
        if self._reading is None or self._reading.done():
            os.close(self._descriptor)
        else:  # whoever waited for it was cancelled
            self._reading.add_done_callback(lambda _: os.close(self._descriptor))

    async def start_of_last_lines(self, count: int, most_bytes: int) -> int:
        """Return the offset where the last `count` lines begin; looks back `most_bytes` at most."""
        end = self.size()
        position, found = end, 0
        while position > max(0, end - most_bytes):
            start = max(0, position - READ_BYTES)
            block = await self.read(start, position - start)
            at = len(block)
            if position == end and block.endswith(b"\n"):
                at -= 1  # the newline that ends the last line begins none
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == count:
                    return start + at + 1
            position = start
        return position


@asynccontextmanager
async def attempt_file(services: "Services", run: Run, attempt: int, name: str) -> AsyncIterator[Tail | None]:
    """Open a file of an attempt; None where there is none yet, Unavailable where it cannot be trusted."""
    owners = (run.owner_uid, os.getuid())
    place = (services.rundirs.path(run.run_id), rundir.attempt_name(attempt), name)
    opening = asyncio.ensure_future(_open(*place, owners, executor=services.files.pool))
    try:
        descriptor = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise Unavailable(f"{name} of attempt {attempt} cannot be read: {error.strerror}") from error
    file = Tail(descriptor, services.files.pool)
    try:
        yield file
    finally:
        file.close()


def _close_unwanted(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _open_carefully(run_dir: Path, attempt: str, name: str, owners: tuple[int, ...]) -> int:
    """Return a descriptor of the file; OSError for anything but a regular file of one of `owners`."""
    outer = os.open(run_dir, _SAFE | os.O_DIRECTORY)
    try:
        inner = os.open(attempt, _SAFE | os.O_DIRECTORY, dir_fd=outer)
    finally:
        os.close(outer)
    try:
        descriptor = os.open(name, _SAFE, dir_fd=inner)
    finally:
        os.close(inner)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in owners:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is not a regular file of the run's owner")
    return descriptor


# aiofiles' way to a thread; its file objects would need two hops a read, and are not closed when a caller is
# cancelled in the middle of one.
_open = wrap(_open_carefully)
_pread = wrap(os.pread)
