"""Reading what lies in an attempt's directory, which is its owner's to fill: with distrust, never blocking.

Opened relative to directory descriptors, through no link, only regular files of the owner or of ours,
and read in a few threads of their own, so that a dead disk holds up readers of logs and nobody else.
"""

import os
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

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
    """One open file that grows."""

    def __init__(self, file: AsyncFileIO) -> None:
        self._file = file
        self._position = 0

    async def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` (<= 64 KiB) bytes from `offset`; fewer at the end, b"" behind it."""
        if offset != self._position:
            await self._file.seek(offset)
            self._position = offset
        data = await self._file.read(min(size, READ_BYTES))
        self._position += len(data)
        return bytes(data)

    def size(self) -> int:
        """Return how long the file is now."""
        return os.fstat(self._file.fileno()).st_size

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
    opener = _opener(services.rundirs.path(run.run_id), rundir.attempt_name(attempt), owners)
    try:
        file = await aiofiles.open(name, "rb", buffering=0, opener=opener, executor=services.files.pool)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise Unavailable(f"{name} of attempt {attempt} cannot be read: {error.strerror}") from error
    try:
        yield Tail(file)
    finally:
        await file.close()


def _opener(run_dir: Path, attempt: str, owners: tuple[int, ...]) -> Callable[[str, int], int]:
    def open_within(name: str, flags: int) -> int:
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
            raise PermissionError(1, "it is not a regular file of the run's owner")
        return descriptor

    return open_within
