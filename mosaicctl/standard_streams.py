"""Standard input, output and error of mosaicctl, also if the caller has closed them.

A closed descriptor would be used again for the next file or socket, and Python has no stream for it.  So
/dev/null takes its place.  Standard error has only notices for the user: a notice that cannot be written is
dropped, and the verb continues.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from mosaicctl.render import label
from mosaicd.protocol import Json

#: The descriptors that were closed when mosaicctl started.
_closed: set[int] = set()


def prepare() -> None:
    """Open the standard streams that are closed, and make standard error one that never fails."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            _closed.add(fd)
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor is `fd`
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    notices = io.BufferedWriter(_Notices(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(notices, encoding, "backslashreplace", line_buffering=True)


def drop(stream: Any) -> None:
    """Let the rest of a broken stream go to /dev/null; Python writes it at exit, and that must not fail."""
    with contextlib.suppress(OSError, ValueError):
        _to_null(stream.fileno())


@contextlib.contextmanager
def are_accepted(runs: list[Json]) -> Iterator[None]:
    """Say on standard error that the daemon has accepted `runs` if the work inside cannot say that.

    The work prints the reply of the daemon and what follows; its errors are raised as they are.
    """
    if 1 in _closed:
        _tell(runs, "standard output is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _tell(runs, "the reader of standard output has gone")
        raise
    except Exception:
        _tell(runs, "mosaicctl failed after that")
        raise


def _tell(runs: list[Json], why: str) -> None:
    for run in runs:
        sys.stderr.write(f"mosaicctl: {label(run)}: accepted; the daemon runs it to its end ({why})\n")


class _Notices(io.FileIO):
    """Writes to standard error; after a failure, to /dev/null."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            _to_null(self.fileno())
            return len(data)


def _to_null(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)
