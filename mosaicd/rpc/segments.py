"""Read a log of an attempt, which has a first file and segments that continue it, as one sequence of bytes.

`AttemptLog.read` returns the bytes at an offset, or at the next offset that was kept; the shim removed the
bytes in between.  A segment that the shim removes during a read can still be read to its end.  Files are read
in the threads of `files`, one read at a time.
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
#: The most files in an attempt's directory; a shim makes at most some two hundred.
MOST_FILES = 4096
_ENTRY = re.compile(rb"^(stdout|stderr) (\d{1,18}) (\d{1,12}\.\d{6})$", re.MULTILINE)

T = TypeVar("T")
Open = Callable[[str], int]


class Piece(NamedTuple):
    """Bytes at `offset`, which is greater than the requested offset if bytes in between were not kept."""

    offset: int
    data: bytes


class AttemptLog:
    """A reader of a growing file of an attempt (stdout, stderr, their index, telemetry) with its segments.

    It writes nothing.  Its descriptors are closed only when no thread uses them.
    """

    def __init__(self, directory: int, name: str, open_file: Open, pool: Executor) -> None:
        """Open the log's first file; an error of `open_file` is raised unchanged.

        `close` closes the descriptor `directory`.  After an error the caller closes it.
        """
        self._directory = directory
        self._name = name
        self._open_file = open_file
        self._pool = pool
        self._start = 0  # offset in the log of the first byte of `_file`
        self._file = open_file(name)
        self._pending: asyncio.Future[Any] | None = None

    async def read(self, offset: int, size: int) -> Piece:
        """Return at most `size` (<= 64 KiB) bytes; no bytes at or after the end of the log."""
        return await self._run_in_thread(lambda: self._read(offset, min(size, READ_BYTES)))

    async def end(self) -> tuple[int, float]:
        """Return the size of the log in bytes and the time of its last change, in Unix seconds."""
        return await self._run_in_thread(self._find_end)

    async def start_of_last_lines(self, count: int, most_bytes: int) -> int:
        """Return the offset of the last `count` lines; searches `most_bytes` at most, not before a gap."""
        end, _ = await self.end()
        position, newlines = end, 0
        while position > max(0, end - most_bytes):
            start = max(0, position - READ_BYTES)
            piece = await self.read(start, position - start)
            if piece.offset + len(piece.data) < position:  # a file ends before `position`
                piece = await self._last_piece_before(piece, position)
            index = len(piece.data)
            if position == end and piece.data.endswith(b"\n"):
                index -= 1  # no line begins after the last newline
            while (index := piece.data.rfind(b"\n", 0, index)) >= 0:
                newlines += 1
                if newlines == count:
                    return piece.offset + index + 1
            if piece.offset >= position or (piece.offset > start and await self._is_after_gap(piece.offset)):
                return min(piece.offset, position)
            position = piece.offset
        return position

    async def _is_after_gap(self, offset: int) -> bool:
        """Return whether the byte before `offset` was not kept."""
        return (await self.read(offset - 1, 1)).offset != offset - 1

    async def _last_piece_before(self, piece: Piece, position: int) -> Piece:
        """Return the last kept bytes before `position`, from one file; the search begins after `piece`."""
        while True:
            reached = piece.offset + len(piece.data)
            following = await self.read(reached, max(1, position - reached))
            if not following.data or following.offset >= position:
                return Piece(min(piece.offset, position), piece.data[: max(0, position - piece.offset)])
            piece = following
            if piece.offset + len(piece.data) >= position:
                return piece

    def close(self) -> None:
        """Close the descriptors, after the read in progress if there is one."""
        if self._pending is None or self._pending.done():
            self._close()
        else:  # the request was cancelled during the read
            self._pending.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._directory)

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        pending = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._pending = pending
        return await asyncio.shield(pending)

    # --- in a thread -----------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> Piece:
        while True:
            data = self._pread(offset, size)
            if data:
                return Piece(offset, data)
            starts = self._segment_starts()
            index = bisect_right(starts, offset) - 1
            if index >= 0 and starts[index] != self._start:
                if self._try_open(starts[index]):
                    continue
                starts = self._segment_starts()  # the shim has just removed that segment
            later = [start for start in starts if start > offset]
            # If a later segment exists, this file no longer grows: one more read reaches its end.
            data = self._pread(offset, size)
            if data:
                return Piece(offset, data)
            if not later:
                return Piece(offset, b"")
            if self._try_open(later[0]):
                offset = later[0]
                if not later[1:]:  # the newest segment, which may still be empty
                    return Piece(offset, self._pread(offset, size))

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset - self._start) if offset >= self._start else b""

    def _segment_starts(self) -> list[int]:
        """Return the offsets at which the files of the log begin, sorted."""
        starts = []
        with os.scandir(self._directory) as entries:
            for count, entry in enumerate(entries):
                if count >= MOST_FILES:
                    raise Unavailable(f"the directory of the attempt has more than {MOST_FILES} files")
                start = rundir.segment_offset(self._name, entry.name)
                if start is not None:
                    starts.append(start)
        return sorted(starts)

    def _try_open(self, start: int) -> bool:
        """Continue with the file that begins at `start`; return False if it was removed.

        Raises Unavailable if the file is refused.
        """
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

    def _find_end(self) -> tuple[int, float]:
        while True:
            newest = max(self._segment_starts(), default=0)
            if newest <= self._start or self._try_open(newest):
                status = os.fstat(self._file)
                return self._start + status.st_size, status.st_mtime


async def offset_at(log: AttemptLog, index: AttemptLog | None, stream: str, since: float) -> int:
    """Return an offset shortly before the first byte that was written at `since` or later.

    `index` is the open log index of the attempt, which has times and offsets.
    """
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


async def _start_of_line(log: AttemptLog, offset: int) -> int:
    """Return where the line at `offset` begins; `offset` itself if that is too far back or was not kept."""
    start = max(0, offset - READ_BYTES)
    piece = await log.read(start, offset - start)
    if offset == 0 or piece.offset + len(piece.data) != offset:
        return offset
    line_start = piece.data.rfind(b"\n") + 1
    return piece.offset + line_start if line_start or piece.offset == 0 else offset
