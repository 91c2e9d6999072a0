"""Take request lines from all connections in a fair order.

A connection stands in the queue at most once, however many lines it has sent, and gives one line each time
it is served.  So a connection that floods the daemon delays only its own lines.  Between two checks of the
sockets the queue serves at most `SHORT_LINES` short lines and one long line.  So the other connections wait
neither for many connections nor for the decoding of a megabyte.
"""

import asyncio
from collections import deque
from typing import Protocol

SHORT_LINES = 16
#: A line up to this size is short: it takes well under a millisecond to decode.
SHORT_BYTES = 16 << 10


class HasLines(Protocol):
    """A connection that may have a line to serve."""

    def line_bytes(self) -> int | None:
        """Return the length of the next line; None if there is no line, or if it may not be taken now."""

    def take_line(self) -> None:
        """Begin to work on the next line."""


class FairQueue:
    """The connections that have a line.  A connection calls `add` whenever it may have a line to serve."""

    def __init__(self) -> None:
        self._short: deque[HasLines] = deque()
        self._long: deque[HasLines] = deque()
        self._queued: set[HasLines] = set()
        self._handle: asyncio.Handle | None = None

    def add(self, connection: HasLines) -> None:
        """Queue the connection, unless it is queued already or has no line to serve."""
        size = connection.line_bytes()
        if size is None or connection in self._queued:
            return
        self._queued.add(connection)
        (self._short if size <= SHORT_BYTES else self._long).append(connection)
        self._schedule_round()

    def _schedule_round(self) -> None:
        if self._handle is None and (self._short or self._long):
            self._handle = asyncio.get_running_loop().call_soon(self._serve_round)

    def _serve_round(self) -> None:
        self._handle = None
        for _ in range(min(SHORT_LINES, len(self._short))):
            self._serve(self._short.popleft())
        if self._long:
            self._serve(self._long.popleft())
        self._schedule_round()

    def _serve(self, connection: HasLines) -> None:
        self._queued.discard(connection)
        if connection.line_bytes() is not None:
            connection.take_line()
            self.add(connection)
