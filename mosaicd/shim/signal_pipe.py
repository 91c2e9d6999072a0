"""Signals of the shim itself, turned into something a poll can wait for.

Handlers rather than SIG_IGN, because what is ignored stays ignored in the worker after its exec.
TERM to a shim stops its run; INT and HUP, which a terminal sends to everybody, do nothing.
"""

import os
import signal
from types import FrameType

_READ_BYTES = 512


class Wake:
    """A pipe that becomes readable with every signal."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._has_term = False
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, _nothing)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def drain(self) -> None:
        """Empty the pipe."""
        try:
            while len(os.read(self.fd, _READ_BYTES)) == _READ_BYTES:
                pass
        except BlockingIOError:
            pass

    def take_term(self) -> bool:
        """Whether TERM came since the last time."""
        had, self._has_term = self._has_term, False
        return had

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._has_term = True


def _nothing(number: int, frame: FrameType | None) -> None:
    del number, frame
