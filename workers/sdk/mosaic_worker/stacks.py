"""Python stacks on request: what a worker does while it seems to do nothing.

mosaicd asks a silent or stuck worker for its stacks with a signal before it stops it.  The signal would kill
a program that does not expect it, so mosaicd sends it only to processes that have announced themselves in
$MOSAIC_STACKS_FILE, where the stacks are written, too.  faulthandler writes them even while no Python code
can run (a long call into C that holds the lock).
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import BinaryIO


class Stacks:
    """The announcement of this process; a context manager gives the signal back."""

    def __init__(self, path: Path | None) -> None:
        """Nothing is announced without a path, or where the program uses both user signals itself."""
        self._path = path
        self._file: BinaryIO | None = None
        self._signal: int | None = None

    @property
    def is_announced(self) -> bool:
        """Whether a request would be answered."""
        return self._signal is not None

    def announce(self) -> None:
        """Take a free user signal and say which; a file that cannot be written does not stop the work."""
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
        """Give the signal back; a request is not answered any more."""
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
