"""Cut a stream of output into the lines that may be telemetry, at nearly no cost for those that cannot.

A line ends at `\\n` or `\\r`, so a record printed after a progress bar's text counts.  Only lines whose
first visible byte is `{` are kept; a chunk without that byte costs one search.  Does no I/O.
"""

from collections.abc import Iterable

from mosaicd.protocol import telemetry


class Scanner:
    """Candidates of one stream, over any cutting of it into chunks."""

    def __init__(self, limit_bytes: int = telemetry.LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._tail = bytearray()  # the unfinished line, when it begins like a record
        self._is_dull = False  # the unfinished line cannot be a record
        self.oversized = 0

    def feed(self, buffer: bytearray, size: int) -> Iterable[bytes]:
        """Return the candidate lines that `buffer[:size]` completes."""
        if not self._tail and buffer.find(b"{", 0, size) < 0:
            self._skip(buffer, size)
            return ()
        chunk = bytes(memoryview(buffer)[:size])
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            self._continue(chunk)
            return ()
        found = []
        if not self._is_dull:
            first = bytes(self._tail) + lines[0] if self._tail else lines[0]
            if first.lstrip()[:1] == b"{":
                found.append(first)
        found += [
            line for line in lines[1:-1] if line[:1] == b"{" or (b"{" in line and line.lstrip()[:1] == b"{")
        ]
        self._tail.clear()
        self._is_dull = False
        self._continue(lines[-1])
        return found

    def tail(self) -> bytes:
        """Return the unfinished candidate, if there is one; it stays where it is."""
        return bytes(self._tail)

    def drop_tail(self) -> None:
        """Forget the unfinished line: it was taken as it stood."""
        self._tail.clear()
        self._is_dull = True

    def _skip(self, buffer: bytearray, size: int) -> None:
        """Take a chunk without any `{`."""
        last = max(buffer.rfind(b"\n", 0, size), buffer.rfind(b"\r", 0, size))
        rest = memoryview(buffer)[last + 1 : size]
        is_blank = len(rest) < 64 and not bytes(rest).strip()
        self._is_dull = not is_blank or (last < 0 and self._is_dull)

    def _continue(self, part: bytes) -> None:
        """Take a piece of a line whose end is not there yet."""
        if self._is_dull:
            return
        if not self._tail:
            part = part.lstrip()
            if part[:1] != b"{":
                self._is_dull = bool(part)
                return
        self._tail += part
        if len(self._tail) > self._limit_bytes:
            self.oversized += 1
            self._tail.clear()
            self._is_dull = True
