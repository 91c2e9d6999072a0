"""One log of an attempt as one run of bytes: the file itself, and the segments that continue it.

A reader asks for an offset and gets bytes of that offset, or of the next one that is still there: what lies
between was not kept.  A segment that the shim drops while it is read stays readable to its end.  All
of it happens in the threads of `files`; one question at a time.
"""

import asyncio
import os
import re
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

from mosaicd.protocol import rundir
from mosaicd.protocol.errors import Unavailable

READ_BYTES = 64 << 10
#: Names in an attempt's directory that are looked at; a shim makes some two hundred at most.
NAMES = 4096
_ENTRY = re.compile(rb"^(stdout|stderr) (\d{1,18}) (\d{1,12}\.\d{6})$", re.MULTILINE)

T = TypeVar("T")
Open = Callable[[str], int]


class Piece(NamedTuple):
    """Bytes that lie at `offset`, which is further than asked for where some were not kept."""

    offset: int
    data: bytes


class Output:
    """A log that grows.  Descriptors are closed only when no thread is using them."""

    def __init__(self, directory: int, name: str, open_file: Open, pool: Executor) -> None:
        """Open the log's first file: what `open_file` raises is the caller's to explain."""
        self._directory = directory
        self._name = name
        self._open_file = open_file
        self._pool = pool
        self._start = 0
        self._file = open_file(name)
        self._asking: asyncio.Future[Any] | None = None

    async def read(self, offset: int, size: int) -> Piece:
        """Return at most `size` (<= 64 KiB) bytes; none at the end and behind it."""
        return await self._ask(lambda: self._read(offset, min(size, READ_BYTES)))

    async def end(self) -> tuple[int, float]:
        """Return the offset behind the last byte that there is now, and when it came."""
        return await self._ask(self._end)

    async def start_of_last_lines(self, count: int, most_bytes: int) -> int:
        """Return where the last `count` lines begin; looks back `most_bytes` at most, and over no gap."""
        end, _ = await self.end()
        position, found = end, 0
        while position > max(0, end - most_bytes):
            start = max(0, position - READ_BYTES)
            piece = await self.read(start, position - start)
            if piece.offset + len(piece.data) < position:  # a file ends in between: look at what follows it
                piece = await self._last_before(piece, position)
            at = len(piece.data)
            if position == end and piece.data.endswith(b"\n"):
                at -= 1  # the newline that ends the last line begins none
            while (at := piece.data.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == count:
                    return piece.offset + at + 1
            if piece.offset >= position or (piece.offset > start and not await self._is_there(piece.offset)):
                return min(piece.offset, position)
            position = piece.offset
        return position

    async def _is_there(self, offset: int) -> bool:
        """Whether the byte before `offset` was kept."""
        return (await self.read(offset - 1, 1)).offset == offset - 1

    async def _last_before(self, piece: Piece, position: int) -> Piece:
        """Return the bytes of the last file that end at `position`, going on from `piece`."""
        while True:
            reached = piece.offset + len(piece.data)
            following = await self.read(reached, max(1, position - reached))
            if not following.data or following.offset >= position:
                return Piece(min(piece.offset, position), piece.data[: max(0, position - piece.offset)])
            piece = following
            if piece.offset + len(piece.data) >= position:
                return piece

    def close(self) -> None:
        """Close all, at once or when the thread that still reads has come back."""
        if self._asking is None or self._asking.done():
            self._close()
        else:  # the request that asked was cancelled
            self._asking.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._directory)

    async def _ask(self, work: Callable[[], T]) -> T:
        asking = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._asking = asking
        return await asyncio.shield(asking)

    # --- in a thread -----------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> Piece:
        while True:
            data = self._pread(offset, size)
            if data:
                return Piece(offset, data)
            starts = self._starts()
            index = bisect_right(starts, offset) - 1
            if index >= 0 and starts[index] != self._start:
                if self._switch(starts[index]):
                    continue
                starts = self._starts()  # it was dropped just now
            later = [start for start in starts if start > offset]
            # A file that another one follows is whole: what came since we read it is all there will be.
            data = self._pread(offset, size)
            if data:
                return Piece(offset, data)
            if not later:
                return Piece(offset, b"")
            if self._switch(later[0]):
                offset = later[0]
                if not later[1:]:  # the newest, which may be empty so far
                    return Piece(offset, self._pread(offset, size))

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset - self._start) if offset >= self._start else b""

    def _starts(self) -> list[int]:
        found = []
        with os.scandir(self._directory) as entries:
            for count, entry in enumerate(entries):
                if count >= NAMES:
                    raise Unavailable(f"the directory of the attempt has more than {NAMES} files")
                start = rundir.segment_offset(self._name, entry.name)
                if start is not None:
                    found.append(start)
        return sorted(found)

    def _switch(self, start: int) -> bool:
        """Go on with the file that begins at `start`; False when it is gone, or is none to be trusted."""
        name = self._name if start == 0 else rundir.segment_name(self._name, start)
        try:
            descriptor = self._open_file(name)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"{name} cannot be read: {error.strerror}") from error
        os.close(self._file)
        self._file, self._start = descriptor, start
        return True

    def _end(self) -> tuple[int, float]:
        while True:
            newest = max(self._starts(), default=0)
            if newest <= self._start or self._switch(newest):
                facts = os.fstat(self._file)
                return self._start + facts.st_size, facts.st_mtime


async def offset_at(log: Output, index: Output | None, stream: str, since: float) -> int:
    """Return an offset such that all that came at `since` or later lies behind it, and little else."""
    end, changed_at = await log.end()
    if changed_at < since:
        return end
    position = (await index.end())[0] if index is not None else 0
    rest = b""
    while index is not None and position > 0:
        start = max(0, position - READ_BYTES)
        block = (await index.read(start, position - start)).data + rest
        for entry in reversed(_ENTRY.findall(block)):
            if entry[0] == stream.encode() and float(entry[2]) < since:
                return await _start_of_line(log, min(int(entry[1]), end))
        rest = block[: block.find(b"\n") + 1]
        position = start
    return 0


async def _start_of_line(log: Output, offset: int) -> int:
    """Return where the line begins that `offset` is in, or `offset` where that is far or was not kept."""
    start = max(0, offset - READ_BYTES)
    piece = await log.read(start, offset - start)
    if offset == 0 or piece.offset + len(piece.data) != offset:
        return offset
    at = piece.data.rfind(b"\n") + 1
    return piece.offset + at if at or piece.offset == 0 else offset
