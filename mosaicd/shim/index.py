"""log.index: which offset of a log was reached when, for readers who ask by time.

A line says that everything before `offset` had been read at `at`; what follows came later.  It is written
when more comes, so a quiet log costs nothing, and the file's own time tells of its last byte.  Lines get
rarer with their number: a second apart in the first hour, half a minute after weeks.
"""

import os

_FIRST_INTERVAL_S = 1.0
_LINES_A_SECOND = 3600  # so many lines make the interval a second longer


class Index:
    """Appends to the index of one attempt; a disk that refuses a line loses that line and nothing else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines = 0

    @property
    def interval_s(self) -> float:
        """The least time between two lines of one stream."""
        return max(_FIRST_INTERVAL_S, self._lines / _LINES_A_SECOND)

    def add(self, stream: str, offset: int, at: float) -> None:
        """Say that all of `stream` before `offset` was there at `at`."""
        self._lines += 1
        try:
            os.write(self._fd, b"%b %d %.6f\n" % (stream.encode(), offset, at))
        except OSError:
            pass

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class StreamIndex:
    """When to write a line for one stream."""

    def __init__(self, stream: str, index: Index) -> None:
        self._stream = stream
        self._index = index
        self._told_offset = 0
        self._told_at = 0.0
        self._last_at = 0.0

    def note(self, offset: int, at: float) -> None:
        """Bytes come at `at`; `offset` is the first of them."""
        since_s = at - self._told_at
        if offset > self._told_offset and not 0 <= since_s < self._index.interval_s:
            self._index.add(self._stream, offset, self._last_at)
            self._told_offset, self._told_at = offset, at
        self._last_at = at

    def finish(self, offset: int) -> None:
        """Nothing more comes."""
        if offset > self._told_offset:
            self._index.add(self._stream, offset, self._last_at)
            self._told_offset = offset
