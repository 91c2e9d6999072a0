"""Processes by identity, from /proc/PID/stat: a pid together with the time of its start.

Standard library only, and no event loop: the shim and the launcher use this module, too.
"""

import os
from typing import NamedTuple


class Process(NamedTuple):
    """One process at one instant; (pid, start_ticks) is its identity within a boot."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    state: str
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZXx"

    @property
    def is_stopped(self) -> bool:
        return self.state in "Tt"


def read_process(pid: int) -> Process | None:
    """Return the process with this pid, also a zombie; None if it has ended or cannot be read."""
    fields = read_stat_fields(pid, 20)
    if len(fields) < 20:
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[0].decode(), int(fields[19]))


def read_start_ticks(pid: int) -> int | None:
    """Return the start time of a process, in clock ticks since boot; None if it has ended."""
    process = read_process(pid)
    return process.start_ticks if process else None


def read_stat_fields(pid: int, count: int) -> list[bytes]:
    """Return the first `count` fields of /proc/PID/stat after the name; [] if the process has ended.

    Note: field N of proc(5) is at index N - 3.
    """
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(file, 4096)
    except OSError:
        return []
    finally:
        os.close(file)
    return text[text.rfind(b")") + 2 :].split(None, count)[:count]  # the name may hold anything, also ")"


def open_pidfd(pid: int, start_ticks: int) -> int | None:
    """Return a pidfd, which becomes readable when the process ends; None if it has ended already."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):  # ended, or not a valid pid
        return None
    process = read_process(pid)
    if process is not None and process.is_alive and process.start_ticks == start_ticks:
        return pidfd
    os.close(pidfd)
    return None
