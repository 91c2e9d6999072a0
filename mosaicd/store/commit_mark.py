"""The commit mark: how far the ledger has come.  A registry that lost commits cannot know it by itself.

The mark is a file beside the registry with one line, the epoch and the last seq.  It is written after every
COMMIT and never before, so it never says too much.

Note: the file is not synced to the disk.  After a power failure it may say too little, and then nothing is
concluded from it.  After a kill, a careless copy or an exchange of files it says exactly what was lost.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from mosaicd.store.statements import QUERIES

SUFFIX = "-mark"
_LINE_BYTES = 128


class CommitMark:
    """Of one registry and epoch; made before the first COMMIT.  A fault of its file never fails a commit."""

    def __init__(self, registry: Path, epoch: str) -> None:
        self._epoch = epoch
        self._seq = -1
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(f"{registry}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, connection: sqlite3.Connection) -> None:
        """Write the last seq; for the one thread that commits."""
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
    """Return the epoch and the last seq of the mark beside this registry; None if there is none."""
    try:
        with open(f"{registry}{SUFFIX}", "rb") as file:
            epoch, seq = file.read(_LINE_BYTES).decode("ascii").split()
            return epoch, int(seq)
    except (OSError, ValueError):
        return None
