"""Framing: each JSON-RPC message is one line of a byte stream; lines have a limit.

`LineReader` does no I/O: its caller passes received bytes in and gets complete lines back.  A line above the
limit is reported once as `Oversized` and skipped up to its newline, so the connection stays usable.
"""

import json
from collections.abc import Iterator
from typing import Any

from mosaicd.protocol import Json

#: The longest request line that the daemon accepts.
REQUEST_LIMIT_BYTES = 1 << 20
#: The longest worker.*, control.* or event message.
SMALL_LIMIT_BYTES = 4096
#: The longest chunk of a log or of telemetry in one message.
CHUNK_LIMIT_BYTES = 64 << 10


class Oversized(bytes):
    """The first bytes of a line that is longer than the limit; the rest is dropped."""


def encode(message: Any) -> bytes:
    """Return `message` as one line with newline.

    Raises ValueError for NaN or infinity, TypeError if not JSON.
    """
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def request(method: str, params: Json, id: int | str | None) -> Json:
    """Return a request; a notification if `id` is None."""
    message: Json = {"jsonrpc": "2.0", "method": method, "params": params}
    if id is not None:
        message["id"] = id
    return message


class LineReader:
    """Cut a byte stream into lines of at most `limit_bytes` bytes (newline not counted)."""

    def __init__(self, limit_bytes: int = REQUEST_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each line that `data` completes, without its newline; skip blank lines."""
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                break
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self._skipping:
                self._skipping = False
            elif len(line) > self.limit_bytes:
                yield Oversized(line[:256])
            elif line.strip():
                yield line
        if len(self._buffer) > self.limit_bytes:
            if not self._skipping:
                self._skipping = True
                yield Oversized(bytes(self._buffer[:256]))
            self._buffer.clear()
