"""Surveys of /proc, and the rules that find the processes of a run in a survey.  Read only.

psutil lists the pids.  This module reads state, parent, group, session and start time of each process in one
read; psutil would open files of /proc several times.
Note: a survey may miss a process that is forked meanwhile, so a caller that acts on a survey takes another.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

from mosaicd import procfs
from mosaicd.procfs import Process
from mosaicd.protocol import rundir

_CHUNK_BYTES = 1 << 16
_STOP_BIT = 1 << (signal.SIGSTOP - 1)
#: Number of repeated reads, and the wait between them, for an environment during an exec.
_EXEC_READS = 50
_EXEC_PAUSE_S = 0.001
#: Indexes of fields of /proc/PID/stat after the name.
_SIZE, _END_CODE, _ENV_START, _ENV_END = 20, 24, 47, 48


Survey = dict[int, Process]


class InExec(Exception):
    """A process is in an exec that takes long, so its environment is unknown."""


def is_stopped_or_stopping(process: Process) -> bool:
    """Return whether a process is stopped, or will stop before it runs another instruction of its own."""
    if process.is_stopped:
        return True
    if process.state != "D":  # only a process that waits in the kernel keeps a STOP pending
        return False
    try:
        with open(f"/proc/{process.pid}/status", "rb", buffering=0) as file:
            text = file.readall()
    except OSError:
        return False
    for line in text.splitlines():
        if line.startswith((b"ShdPnd:", b"SigPnd:")) and int(line.split()[1], 16) & _STOP_BIT:
            return True
    return False


def survey() -> Survey:
    """Return all processes of the machine, including zombies."""
    processes = (procfs.read_process(pid) for pid in psutil.pids())
    return {process.pid: process for process in processes if process}


def descendants(table: Survey, roots: Iterable[int]) -> list[Process]:
    """Return all descendants of `roots`, without the roots."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.ppid, []).append(process)
    below: dict[int, Process] = {}
    queue = list(roots)
    while queue:
        for process in children.get(queue.pop(), ()):
            if process.pid not in below:
                below[process.pid] = process
                queue.append(process.pid)
    return list(below.values())


def children_of_this_process() -> list[int]:
    """Return the pids of this process's children, including zombies; none if the kernel lacks the file."""
    pid = os.getpid()
    try:
        with open(f"/proc/self/task/{pid}/children", "rb", buffering=0) as file:
            return [int(word) for word in file.readall().split()]
    except OSError:
        return []


def environment_of(pid: int) -> bytes:
    """Return the environment of a process; empty if it has ended or may not be read.

    During an exec the kernel shows an empty environment for a moment; then it is read again.  Raises InExec
    if the exec does not end: the machine may be suspended or overloaded, or the program's disk may hang.
    """
    for _ in range(_EXEC_READS):
        environment = _environment(pid)
        if environment != b"" or not _has_environment(pid):
            return environment or b""
        time.sleep(_EXEC_PAUSE_S)
    raise InExec(pid)


def _has_environment(pid: int) -> bool:
    """Return whether a process has an environment, or gets one by an exec; a zombie has none."""
    fields = procfs.read_stat_fields(pid, _ENV_END + 1)
    if len(fields) <= _ENV_END or fields[_SIZE] == b"0":  # a zombie or a kernel thread
        return False
    # An exec sets the bounds to the same address before it fills in the end, and the end of the code last.
    is_in_exec = b"0" in (fields[_END_CODE], fields[_ENV_END])
    return is_in_exec or fields[_ENV_START] != fields[_ENV_END]


def _environment(pid: int) -> bytes | None:
    """Return the environment that /proc shows now; None if the process has ended or is another user's."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    environment = b""
    try:
        while chunk := os.read(fd, _CHUNK_BYTES):
            environment += chunk
    except OSError:
        pass  # the process has ended meanwhile: the bytes so far may contain the marker
    finally:
        os.close(fd)
    return environment


def marker_of(pid: int) -> str | None:
    """Return the run id in the environment of `pid`, or None; raise InExec if it is unknown."""
    environment = environment_of(pid)
    prefix = rundir.MARKER.encode() + b"="
    if prefix not in environment:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def marked(table: Survey, run_id: str, skip: Iterable[int] = ()) -> list[Process]:
    """Return the living processes outside `skip` whose environment names the run.

    Note: a process in an exec that takes long is left out.  The next survey finds it.
    """
    skipped = {os.getpid(), *skip}
    found = []
    for process in table.values():
        if process.is_alive and process.pid not in skipped:
            with contextlib.suppress(InExec):
                if marker_of(process.pid) == run_id:
                    found.append(process)
    return found


def in_session(table: Survey, leader_pid: int, leader_start: int) -> list[Process]:
    """Return the processes of the session and group of a leader, which may have ended.

    The result is empty if `leader_pid` now belongs to another process.
    """
    leader = table.get(leader_pid)
    if leader is not None and leader.start_ticks != leader_start:
        return []
    return [
        process
        for process in table.values()
        if leader_pid in (process.sid, process.pgid) and process.start_ticks >= leader_start
    ]


def exclusive_groups(table: Survey, members: Iterable[Process]) -> frozenset[int]:
    """Return the process groups whose living processes are all in `members`."""
    pids = {process.pid for process in members}
    other_groups = {
        process.pgid for process in table.values() if process.is_alive and process.pid not in pids
    }
    return frozenset(table[pid].pgid for pid in pids) - other_groups
