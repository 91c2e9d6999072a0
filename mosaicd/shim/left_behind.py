"""The processes that remain when a program has ended by itself: how many, and their command lines.

A helper that ends together with its program is not left behind: tee at its end of file, or the resource
tracker of Python.  So the shim waits for a moment before it counts and before it ends the rest.
Note: processes that a stop or a limit ends are not left behind, and are not counted.
"""

import os

from mosaicd.procfs import Process
from mosaicd.protocol.records.leftovers import LeftProcess
from mosaicd.shim.tree import Tree

#: The longest wait for helpers, and the part of the grace period that it may take.
_SETTLE_S = 0.5
_SETTLE_PART = 0.25
_MOST_LISTED = 20
_COMMAND_BYTES = 256


class LeftBehind:
    """The count of the processes that one program leaves behind."""

    def __init__(self, tree: Tree, grace_s: float) -> None:
        self._tree = tree
        self._settle_s = min(_SETTLE_S, grace_s * _SETTLE_PART)
        self._count_at: float | None = None
        self.ended_at = 0.0
        #: The first processes that were counted.
        self.listed: list[LeftProcess] = []

    @property
    def is_settling(self) -> bool:
        """Return whether the program has ended and its processes are not counted yet."""
        return self._count_at is not None

    def next_at(self) -> float | None:
        """Return when to count (monotonic), or None."""
        return self._count_at

    def begin(self, now: float) -> None:
        """Begin to wait for helpers: the program ended at `now`, and other processes remain."""
        self.ended_at, self._count_at = now, now + self._settle_s

    def count(self, *, is_childless: bool) -> int:
        """End the wait; return the number of processes, and note the first of them in `listed`.

        `is_childless`: all processes have ended during the wait.
        """
        self._count_at = None
        processes = [] if is_childless else self._tree.read_members().processes
        oldest = sorted(processes, key=lambda process: (process.start_ticks, process.pid))
        self.listed = [
            LeftProcess(pid=process.pid, command=_command(process)) for process in oldest[:_MOST_LISTED]
        ]
        return len(processes)


def _command(process: Process) -> str:
    """Return the beginning of the command line of a process; its name in brackets if it has none."""
    command = _read(process.pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ")
    return (command or b"[" + _read(process.pid, "comm").strip() + b"]").decode("utf-8", "replace")


def _read(pid: int, name: str) -> bytes:
    """Return the beginning of a file of /proc/PID; empty if the process has ended."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _COMMAND_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
