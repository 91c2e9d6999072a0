"""Whose line is next: one queue over all connections, so that a flood costs its sender and nobody else.

A connection stands in the queue once, however much it sent, and gives one line a turn.  Between two
looks at the sockets at most `SHORT_LINES` short lines and one long line are taken, so neither many
connections nor a megabyte to decode keeps others waiting.
"""

import asyncio
from collections import deque
from typing import Protocol

SHORT_LINES = 16
#: A line up to here is short: it takes well under a millisecond to decode.
SHORT_BYTES = 16 << 10


class HasLines(Protocol):
    """A connection with a line to give."""

    def line_bytes(self) -> int | None:
        """Return how long the line is that waits, None when none does or none may be taken now."""

    def take_line(self) -> None:
        """Work on the line that waits."""


class Turns:
    """The queue.  A connection is told to it by `join` whenever it may have a line to give."""

    def __init__(self) -> None:
        self._short: deque[HasLines] = deque()
        self._long: deque[HasLines] = deque()
        self._queued: set[HasLines] = set()
        self._handle: asyncio.Handle | None = None

    def join(self, connection: HasLines) -> None:
        """Queue the connection, unless it is queued or has no line to give."""
        size = connection.line_bytes()
        if size is None or connection in self._queued:
            return
        self._queued.add(connection)
        (self._short if size <= SHORT_BYTES else self._long).append(connection)
        self._arrange()

    def _arrange(self) -> None:
        if self._handle is None and (self._short or self._long):
            self._handle = asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._handle = None
        for _ in range(min(SHORT_LINES, len(self._short))):
            self._turn(self._short.popleft())
        if self._long:
            self._turn(self._long.popleft())
        self._arrange()

    def _turn(self, connection: HasLines) -> None:
        self._queued.discard(connection)
        if connection.line_bytes() is not None:
            connection.take_line()
            self.join(connection)
