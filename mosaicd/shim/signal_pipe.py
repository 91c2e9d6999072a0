"""Signals to this process as a readable pipe, so that `poll` wakes for a signal.

Handlers are set instead of SIG_IGN, because an ignored signal stays ignored in the worker after its exec.
TERM ends the launcher or stops the run of a shim.  INT and HUP, which a terminal sends to all its processes,
do nothing.
"""

import os
import signal
from types import FrameType

_READ_BYTES = 512


class SignalPipe:
    """A pipe that becomes readable when a signal arrives; at most one in a process."""

    fd: int
    _has_term: bool

    def __init__(self) -> None:
        self._open()
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, _nothing)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def renew(self) -> None:
        """In a forked child: use a pipe of its own from now on.  The handlers were inherited.

        Note: a new SignalPipe would do the same, but `signal.signal` makes each shim 0.3 MB larger.
        """
        self.close()
        self._open()

    def drain(self) -> None:
        """Empty the pipe."""
        try:
            while len(os.read(self.fd, _READ_BYTES)) == _READ_BYTES:
                pass
        except BlockingIOError:
            pass

    def take_term(self) -> bool:
        """Return whether TERM arrived since the last call."""
        had_term, self._has_term = self._has_term, False
        return had_term

    def close(self) -> None:
        """Close the pipe; the handlers stay."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._write_fd)

    def _open(self) -> None:
        self._has_term = False
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._has_term = True


def _nothing(number: int, frame: FrameType | None) -> None:
    del number, frame
