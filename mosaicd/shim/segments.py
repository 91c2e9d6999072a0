"""A size-limited log: a head file that stays, then a ring of segment files, of which the oldest are removed.

Offsets count all bytes of the worker, also lost ones.  The name of a segment contains the offset of its first
byte, so names and sizes show which bytes exist.  No file has a hole: after bytes that the disk refused, a new
segment begins.
"""

import errno
import os
from collections import deque
from collections.abc import Callable

from mosaicd.protocol import rundir

#: Number of segments in the second half of the limit; the head has the first half.
RING = 4
#: Most files of one ring: there can be more than RING if the disk was full several times.
RING_FILES = 64
#: Errors of a full disk, a full quota and a limit of file size.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Segment:
    """A file of the ring: its offset, its size, and the number of its first record (0 for a log)."""

    __slots__ = ("first_seq", "size", "start")

    def __init__(self, start: int, size: int, first_seq: int) -> None:
        self.start = start
        self.size = size
        self.first_seq = first_seq


class Segments:
    """The head file and its segments; after the constructor, no method raises."""

    def __init__(
        self, open_file: Callable[[str], int], remove: Callable[[str], None], name: str, limit_bytes: int
    ) -> None:
        self._open_file = open_file
        self._remove = remove
        self._name = name
        self._head_bytes = limit_bytes // 2
        self._ring_bytes = limit_bytes - self._head_bytes
        self._limit_bytes = self._head_bytes  # of the current file
        self._fd: int | None = open_file(name)
        self._ring: deque[Segment] = deque()
        self.size = 0  # of the current file
        self.offset = 0  # of the next byte
        self.is_disk_full = False  # whether the last error was a full disk and not another one

    @property
    def room(self) -> int:
        """Return how many bytes fit into the current file; 0 without a current file."""
        return self._limit_bytes - self.size if self._fd is not None else 0

    @property
    def ring(self) -> deque[Segment]:
        """Return the segments after the head, the oldest first; the last one is the current file."""
        return self._ring

    def write(self, data: bytes | memoryview) -> int:
        """Append to the current file, without regard to its limit; return how many bytes were written."""
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
        """Count lost bytes; the next bytes begin a new segment."""
        self._finish()
        self.offset += count

    def roll(self, first_seq: int = 0) -> list[Segment] | None:
        """Begin the next segment; return the segments removed for it, or None if it cannot be begun."""
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
        """Close the current file."""
        self._finish(keep_empty=True)  # the name of an empty segment shows where lost bytes end

    def _finish(self, *, keep_empty: bool = False) -> None:
        """Close the current file, if there is one; remove a segment without bytes unless `keep_empty`."""
        if self._fd is None:
            return
        os.close(self._fd)
        self._fd = None
        if self._ring and not self.size and not keep_empty:
            # The disk had room for the name, not for a byte.  The name contains the offset of the next byte.
            self._ring.pop()
            try:
                self._remove(rundir.segment_name(self._name, self.offset))
            except OSError:
                pass  # an empty segment does no harm
        self.size = 0
