"""Python stacks on request, for the post-mortem of a silent or stuck worker.

Before mosaicd ends such a worker, it requests the stacks with a signal.  The signal would kill a program
without a handler, so mosaicd sends it only to processes that are announced in $MOSAIC_STACKS_FILE.  The
stacks are written to the same file.  faulthandler can write them also while no Python code can run (a long
call into C that holds the interpreter lock).
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import BinaryIO


class Stacks:
    """The announcement of this process; as a context manager, it restores the signal handler at the end."""

    def __init__(self, path: Path | None) -> None:
        """Prepare the announcement; without a path, or without a free user signal, there is none."""
        self._path = path
        self._file: BinaryIO | None = None
        self._signal: int | None = None

    @property
    def is_announced(self) -> bool:
        """Whether the process is announced, so that it answers a request."""
        return self._signal is not None

    def announce(self) -> None:
        """Register a free user signal and announce it; if the file cannot be written, the work continues."""
        number = _free_signal()
        if self._path is None or number is None or self.is_announced:
            return
        try:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 -- faulthandler keeps writing to it
            faulthandler.register(number, file=self._file, all_threads=True, chain=False)
            self._file.write(b"mosaic-stacks pid=%d signal=%d\n" % (os.getpid(), number))
        except OSError:
            self.close()
            return
        self._signal = number

    def close(self) -> None:
        """Unregister the signal; further requests are not answered."""
        if self._signal is not None:
            faulthandler.unregister(self._signal)
            self._signal = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _free_signal() -> int | None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_DFL:
            return int(number)
    return None
