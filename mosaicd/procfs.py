"""Processes by identity: a descriptor that becomes readable when exactly this process ends."""

import os


def open_for(pid: int, start_ticks: int) -> int | None:
    """Return a pidfd of the process with this pid and start time, or None when it is not there (any more)."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):  # gone, or never the pid of a process
        return None
    if read_start_ticks(pid) == start_ticks:
        return pidfd
    os.close(pidfd)
    return None


def read_start_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat, or None when the process is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            tail = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if tail[0] in (b"Z", b"X") else int(tail[19])
