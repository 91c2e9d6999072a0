"""The input of a run (--stdin): opened before the submit, and sent to the daemon in chunks.

The daemon removes an upload with its connection.  So the client can send the whole input again: it reads a
regular file again, and keeps a copy of everything that it has read from a pipe.
"""

import base64
import os
import stat
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from mosaicctl.client import RECONNECT_TIMEOUT_S, Client, Disconnected
from mosaicctl.exits import UsageError
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Draining, TimedOut, TooLarge

#: A longer copy of a pipe is kept in a file and not in memory.
_IN_MEMORY_BYTES = 8 << 20
#: How often an input is sent if the daemon ends meanwhile.
_TRIES = 5


class Input:
    """The bytes of FILE, or of standard input for `-`, as often as they are needed."""

    def __init__(self, path: str) -> None:
        """Open the file; raise UsageError if that fails."""
        self.name = "standard input" if path == "-" else path
        try:
            descriptor = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._file: BinaryIO = os.fdopen(descriptor, "rb")
        except OSError as error:
            raise UsageError(f"--stdin: {self.name}: {error.strerror}") from error
        facts = os.fstat(self._file.fileno())
        self._copy: Any = None
        self._start = 0
        #: The size of a regular file; None if only its end shows it.
        self.size: int | None = None
        if stat.S_ISDIR(facts.st_mode):
            raise UsageError(f"--stdin: {self.name}: it is a directory")
        if stat.S_ISREG(facts.st_mode):
            self._start = self._file.tell()
            self.size = max(0, facts.st_size - self._start)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield all bytes from the beginning, in chunks of at most `size` bytes."""
        if self.size is not None:
            self._file.seek(self._start)
            yield from self._rest(self._file, size)
            return
        if self._copy is None:
            from tempfile import SpooledTemporaryFile

            self._copy = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - as long as the process lives
        self._copy.seek(0)
        yield from self._rest(self._copy, size)
        for chunk in self._rest(self._file, size):
            self._copy.write(chunk)
            yield chunk

    def _rest(self, file: Any, size: int) -> Iterator[bytes]:
        try:
            while chunk := file.read(size):
                yield chunk
        except OSError as error:
            raise UsageError(f"--stdin: {self.name}: {error.strerror}") from error


def input_of(args: Any) -> Input | None:
    """Return the input that --stdin names, or None; raise UsageError if it cannot be opened."""
    if args.stdin is None:
        return None
    if args.stdin == "-" and args.file == "-":
        raise UsageError("-f - and --stdin - cannot be used together: both read standard input")
    return Input(args.stdin)


def submit_with_input(client: Client, params: Json, source: Input) -> Json:
    """Send the input, submit, and return the run; begin again if the daemon is restarted meanwhile.

    `params` has a key, so a second submit after a lost reply makes no second run.  Mistakes in `params` are
    found before the input is sent.
    """
    client.call("run.submit", {**params, "dry_run": True})
    for tries in range(1, _TRIES + 1):
        try:
            run: Json = client.call("run.submit", {**params, "stdin": _upload(client, source)})
            return run
        except (Disconnected, Draining) as error:
            if tries == _TRIES:
                raise
            try:
                client.reconnect(time.monotonic() + RECONNECT_TIMEOUT_S)
            except TimedOut:
                raise error from None
    raise AssertionError("the last try returns or raises")


def _upload(client: Client, source: Input) -> str:
    """Send the whole input on this connection and return the name of the upload."""
    opened = client.call("input.open", {})
    limit = opened["limit_bytes"]
    if source.size is not None and source.size > limit:
        raise TooLarge(
            f"--stdin: {source.name} has {source.size} bytes, more than the {limit} of the setting [limits] "
            "stdin_bytes; let the program read it from a file"
        )
    offset = 0
    for chunk in source.chunks(opened["chunk_bytes"]):
        data = base64.b64encode(chunk).decode()
        params = {"upload": opened["upload"], "offset": offset, "data": data}
        offset = client.call("input.write", params)["size"]
    return str(opened["upload"])
