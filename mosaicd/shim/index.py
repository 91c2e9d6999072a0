"""log.index: at which time a log had which length, to find output by time.

A line means: the worker had written `offset` bytes at the time `at`.  The shim writes a line when the next
output arrives, so a quiet log costs nothing; the time of the last byte is the file's mtime.  The interval
between lines grows with their number: 1 s in the first hour, half a minute after weeks.
"""

import os

_FIRST_INTERVAL_S = 1.0
_LINES_PER_EXTRA_SECOND = 3600  # after this many lines the interval is one second longer


class Index:
    """The index of one attempt, append only; a line that the disk refuses is left out."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines = 0

    @property
    def interval_s(self) -> float:
        """Return the shortest time between two lines of one stream."""
        return max(_FIRST_INTERVAL_S, self._lines / _LINES_PER_EXTRA_SECOND)

    def add(self, stream: str, offset: int, at: float) -> None:
        """Write a line: the worker had written `offset` bytes to `stream` at the time `at`."""
        self._lines += 1
        try:
            os.write(self._fd, b"%b %d %.6f\n" % (stream.encode(), offset, at))
        except OSError:
            pass

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class StreamIndex:
    """The index lines of one stream: decides when one is due."""

    def __init__(self, stream: str, index: Index) -> None:
        self._stream = stream
        self._index = index
        self._indexed_offset = 0
        self._indexed_at = 0.0
        self._last_at = 0.0

    def note(self, offset: int, at: float) -> None:
        """Note bytes that begin at `offset` and arrived at the time `at`."""
        since_s = at - self._indexed_at
        if offset > self._indexed_offset and not 0 <= since_s < self._index.interval_s:
            self._index.add(self._stream, offset, self._last_at)
            self._indexed_offset, self._indexed_at = offset, at
        self._last_at = at

    def finish(self, offset: int) -> None:
        """Write the last line: the stream has ended at `offset`."""
        if offset > self._indexed_offset:
            self._index.add(self._stream, offset, self._last_at)
            self._indexed_offset = offset
