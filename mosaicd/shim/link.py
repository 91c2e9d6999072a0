"""The shim's end of the daemon's socket: connect, send lines, take lines apart, notice a loss.

Never blocks, never queues more than the dialogue above gives it, and after a loss waits 10 ms to 200 ms
before it tries again, for as long as the shim lives.
"""

import json
import socket
import time

from mosaicd.protocol import Json, framing
from mosaicd.protocol.backoff import Backoff

_FIRST_DELAY_S = 0.010
_MOST_DELAY_S = 0.200
_RECEIVE_BYTES = 1 << 14


class Link:
    """One connection at a time to the daemon."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._reader = framing.LineReader()
        self._out = bytearray()
        self._backoff = Backoff(_FIRST_DELAY_S, _MOST_DELAY_S)
        self._try_at = 0.0
        self.down_since: float | None = time.monotonic()

    @property
    def fd(self) -> int | None:
        return self._socket.fileno() if self._socket else None

    @property
    def has_backlog(self) -> bool:
        """Whether lines wait for the daemon to read."""
        return bool(self._out)

    def next_at(self) -> float | None:
        """When `connect` is due."""
        return None if self._socket else self._try_at

    def connect(self, now: float) -> bool:
        """Try once, if it is time; True when this made a connection."""
        if self._socket or now < self._try_at:
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:  # nobody there, or its backlog is full
            connection.close()
            self._put_off(now)
            return False
        self._socket = connection
        self._reader = framing.LineReader()
        self._out.clear()
        return True

    def settle(self) -> None:
        """The daemon has accepted us: the next loss starts with the short delay again."""
        self._backoff.reset()
        self.down_since = None

    def drop(self, now: float) -> None:
        """Close the connection and try again later."""
        if self._socket:
            self._socket.close()
            self._socket = None
            self._put_off(now)
        if self.down_since is None:
            self.down_since = now

    def _put_off(self, now: float) -> None:
        self._try_at = now + self._backoff.next_s()

    def send(self, message: Json) -> None:
        """Send one message, as far as the socket takes it now; a loss shows in the next `receive`."""
        self._out += framing.encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if not self._socket or not self._out:
            return
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # lost: the read side reports it

    def receive(self) -> list[Json] | None:
        """Return the messages that have arrived, or None when the connection is lost."""
        if not self._socket:
            return None
        messages: list[Json] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return messages
            except OSError:
                return None
            if not data:
                return messages or None
            for line in self._reader.feed(data):
                message = _decode(line)
                if message is not None:
                    messages.append(message)
            if len(data) < _RECEIVE_BYTES:
                return messages


def _decode(line: bytes) -> Json | None:
    """Return the object in a line; a line that holds none is of no use to us."""
    if isinstance(line, framing.Oversized):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
