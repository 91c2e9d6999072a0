"""The shim's connection to the daemon: connect, send messages, receive messages, detect a loss.

No call blocks.  After a loss the link tries again as long as the shim lives, with a back-off of 10 to 200 ms.
"""

import json
import socket
import time

from mosaicd.protocol import Json, framing
from mosaicd.protocol.backoff import Backoff

_FIRST_DELAY_S = 0.010
_LAST_DELAY_S = 0.200
_RECEIVE_BYTES = 1 << 14


class Link:
    """One connection at a time to the daemon."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._reader = framing.LineReader()
        self._out = bytearray()
        self._backoff = Backoff(_FIRST_DELAY_S, _LAST_DELAY_S)
        self._try_at = 0.0
        self.down_since: float | None = time.monotonic()

    @property
    def fd(self) -> int | None:
        """Return the descriptor of the connection, None without a connection."""
        return self._socket.fileno() if self._socket else None

    @property
    def has_backlog(self) -> bool:
        """Return whether unsent bytes wait for the daemon to read."""
        return bool(self._out)

    def next_at(self) -> float | None:
        """Return when `connect` is due, None while connected."""
        return None if self._socket else self._try_at

    def connect(self, now: float) -> bool:
        """Connect if a try is due; return whether this call made a connection."""
        if self._socket or now < self._try_at:
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:  # no daemon listens, or its backlog is full
            connection.close()
            self._retry_later(now)
            return False
        self._socket = connection
        self._reader = framing.LineReader()
        self._out.clear()
        return True

    def note_accepted(self) -> None:
        """Note that the daemon has accepted the shim: the back-off begins again after the next loss."""
        self._backoff.reset()
        self.down_since = None

    def drop(self, now: float) -> None:
        """Close the connection and try again later."""
        if self._socket:
            self._socket.close()
            self._socket = None
            self._retry_later(now)
        if self.down_since is None:
            self.down_since = now

    def _retry_later(self, now: float) -> None:
        self._try_at = now + self._backoff.next_s()

    def send(self, message: Json) -> None:
        """Send a message, without waiting; `receive` reports a lost connection."""
        self._out += framing.encode(message)
        self.flush()

    def flush(self) -> None:
        """Send the waiting bytes, as many as the socket accepts."""
        if not self._socket or not self._out:
            return
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # the connection is lost: `receive` reports it

    def receive(self) -> list[Json] | None:
        """Return the messages that have arrived, or None if the connection is lost."""
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
    """Return the JSON object in a line; None if it is oversized or contains none."""
    if isinstance(line, framing.Oversized):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
