"""A file that keeps its beginning and its end: a head, then a ring of segments, the oldest dropped.

Offsets count what the worker wrote, kept or not, and a segment's name holds the offset at which it begins;
so the names and sizes alone say which bytes are there.  Each file is one piece without a hole: where a
disk refused bytes, the next ones begin another segment.
"""

import errno
import os
from collections import deque
from collections.abc import Callable

from mosaicd.protocol import rundir

#: Into how many segments the half behind the head is cut.
RING = 4
#: Files of one ring: more than RING where a disk was full again and again.
RING_FILES = 64
#: What a full disk, a full quota and a limit of file size say.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Segment:
    """A file of the ring: its offset, its size, and the number of its first record (0 for a log)."""

    __slots__ = ("first_seq", "size", "start")

    def __init__(self, start: int, size: int, first_seq: int) -> None:
        self.start = start
        self.size = size
        self.first_seq = first_seq


class Segments:
    """One file and the segments that continue it.  Nothing here raises once it is open."""

    def __init__(
        self, open_file: Callable[[str], int], remove: Callable[[str], None], name: str, limit_bytes: int
    ) -> None:
        self._open_file = open_file
        self._remove = remove
        self._name = name
        self._head_bytes = limit_bytes // 2
        self._ring_bytes = limit_bytes - self._head_bytes
        self._limit_bytes = self._head_bytes  # of the file that is being written
        self._fd: int | None = open_file(name)
        self._ring: deque[Segment] = deque()
        self.size = 0  # of the file that is being written
        self.offset = 0  # of the next byte
        self.is_disk_full = False  # what the last refusal was: no room, or trouble of another kind

    @property
    def room(self) -> int:
        """How many bytes the file that is being written may still take; 0 where there is none."""
        return self._limit_bytes - self.size if self._fd is not None else 0

    @property
    def ring(self) -> deque[Segment]:
        """The files behind the head, the oldest first; the last is being written."""
        return self._ring

    def write(self, data: bytes | memoryview) -> int:
        """Append to the file that is being written, whatever its limit; return how much went in."""
        if self._fd is None:
            return 0
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self.is_disk_full = error.errno in FULL
        self.size += written
        self.offset += written
        if self._ring:
            self._ring[-1].size += written
        return written

    def skip(self, count: int) -> None:
        """Count bytes that are lost: what comes next begins a segment of its own."""
        self._finish()
        self.offset += count

    def roll(self, first_seq: int = 0) -> list[Segment] | None:
        """Begin the next segment; return those that had to go for it, None where none can be begun."""
        self._finish()
        size = max(1, self._ring_bytes // RING)
        dropped = []
        while self._ring and (
            sum(segment.size for segment in self._ring) + size > self._ring_bytes
            or len(self._ring) >= RING_FILES
        ):
            dropped.append(self._ring.popleft())
        try:
            for segment in dropped:
                self._remove(rundir.segment_name(self._name, segment.start))
            self._fd = self._open_file(rundir.segment_name(self._name, self.offset))
        except OSError as error:
            self.is_disk_full = error.errno in FULL
            if not dropped:
                return None
        else:
            self._ring.append(Segment(self.offset, 0, first_seq))
            self._limit_bytes = size
        return dropped

    def close(self) -> None:
        """Finish the file that is being written."""
        self._finish(keep_empty=True)

    def _finish(self, *, keep_empty: bool = False) -> None:
        if self._fd is None:
            return
        os.close(self._fd)
        self._fd = None
        if self._ring and not self.size and not keep_empty:  # its disk took the name and no byte
            self._ring.pop()
            try:
                self._remove(rundir.segment_name(self._name, self.offset))
            except OSError:
                pass  # an empty file says nothing wrong
        self.size = 0
