"""Finding the lines of a stream that may be telemetry records: their first visible byte is `{`.  Does no I/O.

A line ends at `\\n` or `\\r`, so a record after the text of a progress bar is found.  A chunk without `{`
costs only one search.
"""

from collections.abc import Iterable

from mosaicd.protocol import telemetry


class Scanner:
    """The candidate lines of one stream, which arrives in chunks of any size."""

    def __init__(self, limit_bytes: int = telemetry.LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._tail = bytearray()  # the unfinished line, if it begins like a record
        self._is_plain = False  # the unfinished line cannot be a record
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
        candidates = []
        if not self._is_plain:
            first = bytes(self._tail) + lines[0] if self._tail else lines[0]
            if first.lstrip()[:1] == b"{":
                candidates.append(first)
        candidates += [
            line for line in lines[1:-1] if line[:1] == b"{" or (b"{" in line and line.lstrip()[:1] == b"{")
        ]
        self._tail.clear()
        self._is_plain = False
        self._continue(lines[-1])
        return candidates

    def tail(self) -> bytes:
        """Return the unfinished candidate line, empty if there is none; the scanner keeps it."""
        return bytes(self._tail)

    def drop_tail(self) -> None:
        """Drop the unfinished line: the caller has used it."""
        self._tail.clear()
        self._is_plain = True

    def _skip(self, buffer: bytearray, size: int) -> None:
        """Scan a chunk without `{`."""
        last = max(buffer.rfind(b"\n", 0, size), buffer.rfind(b"\r", 0, size))
        rest = memoryview(buffer)[last + 1 : size]
        is_blank = len(rest) < 64 and not bytes(rest).strip()
        self._is_plain = not is_blank or (last < 0 and self._is_plain)

    def _continue(self, part: bytes) -> None:
        """Add a part of a line whose end has not arrived."""
        if self._is_plain:
            return
        if not self._tail:
            part = part.lstrip()
            if part[:1] != b"{":
                self._is_plain = bool(part)
                return
        self._tail += part
        if len(self._tail) > self._limit_bytes:
            self.oversized += 1
            self._tail.clear()
            self._is_plain = True
