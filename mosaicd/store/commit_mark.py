"""The commit mark: a file beside the registry with the epoch and the last seq that was committed.

A registry that lost its newest commits cannot notice that itself, so the daemon compares it with the mark.
The mark is written after every COMMIT and never before, so it never names a seq that was not committed.

Note: the mark is not fsynced.  After a power loss it may be older than the registry, and then it proves
nothing.  After a kill, or if the registry file was replaced, it shows exactly what the registry lacks.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from mosaicd.store.statements import QUERIES

SUFFIX = "-mark"
_LINE_BYTES = 128


class CommitMark:
    """The mark of one registry and epoch, made before the first COMMIT; errors of its file are ignored."""

    def __init__(self, registry: Path, epoch: str) -> None:
        self._epoch = epoch
        self._seq = -1
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(f"{registry}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, connection: sqlite3.Connection) -> None:
        """Write the last seq of the ledger; call it only on the thread that commits."""
        if self._file is None:
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            found = connection.execute(QUERIES["last_seq"]).fetchone()
            seq = int(found[0]) if found else 0
            if seq != self._seq:
                os.pwrite(self._file, f"{self._epoch} {seq:020d}\n".encode(), 0)
                self._seq = seq

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read(registry: Path) -> tuple[str, int] | None:
    """Return the epoch and the last seq of the mark of a registry; None if it has no readable mark."""
    try:
        with open(f"{registry}{SUFFIX}", "rb") as file:
            epoch, seq = file.read(_LINE_BYTES).decode("ascii").split()
            return epoch, int(seq)
    except (OSError, ValueError):
        return None
