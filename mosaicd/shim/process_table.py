"""Who belongs to a run's tree: one reading of /proc, and the rules that pick members out of it.

Only reads.  psutil lists the processes; the rest is read here, because a decision needs state, parent,
group, session and start time of every process as near to one instant as /proc allows, and psutil's
`children` opens each process twice for one of them.  A survey is never complete: what forks while it is
taken may be missing, so whoever acts on one looks again.
"""

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
#: How often, and after which pause, an environment is read again that an exec is about to fill in.
_EXEC_LOOKS = 50
_EXEC_PAUSE_S = 0.001
#: Of the fields of /proc/PID/stat behind the name.
_SIZE, _ENV_START, _ENV_END = 20, 47, 48


Survey = dict[int, Process]


def is_held(process: Process) -> bool:
    """Say whether a process is stopped, or will be before it runs another instruction of its own."""
    if process.is_stopped:
        return True
    if process.state != "D":  # waits in the kernel (a vfork, a dead file server) and cannot stop there
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
    """Return every process of the machine, zombies too."""
    found = (procfs.read_process(pid) for pid in psutil.pids())
    return {process.pid: process for process in found if process}


def descendants(table: Survey, roots: Iterable[int]) -> list[Process]:
    """Return all processes below `roots`, which are not among them."""
    below: dict[int, list[Process]] = {}
    for process in table.values():
        below.setdefault(process.ppid, []).append(process)
    found: dict[int, Process] = {}
    waiting = list(roots)
    while waiting:
        for process in below.get(waiting.pop(), ()):
            if process.pid not in found:
                found[process.pid] = process
                waiting.append(process.pid)
    return list(found.values())


def children_of_this_process() -> list[int]:
    """Return the pids of our own children, zombies too; none where the kernel has no such file."""
    pid = os.getpid()
    try:
        with open(f"/proc/self/task/{pid}/children", "rb", buffering=0) as file:
            return [int(word) for word in file.readall().split()]
    except OSError:
        return []


def environment_of(pid: int) -> bytes:
    """Return a process's environment as the kernel shows it; empty when gone or not ours to read.

    In the middle of an exec the kernel shows none for a moment, to whomever: then it is read again.
    """
    found = _environment(pid)
    for _ in range(_EXEC_LOOKS):
        if found != b"" or not _has_an_environment(pid):
            break
        time.sleep(_EXEC_PAUSE_S)
        found = _environment(pid)
    return found or b""


def _has_an_environment(pid: int) -> bool:
    """Say whether what reads as empty is on its way, or there by now: no zombie's, and not truly empty."""
    fields = procfs.read_stat_fields(pid, _ENV_END + 1)
    if len(fields) <= _ENV_END or fields[_SIZE] == b"0":  # a zombie, or the kernel's own
        return False
    return fields[_ENV_END] == b"0" or fields[_ENV_START] != fields[_ENV_END]


def _environment(pid: int) -> bytes | None:
    """Return what the kernel shows; None when it never shows us any: gone, or another user's."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    found = b""
    try:
        while chunk := os.read(fd, _CHUNK_BYTES):
            found += chunk
    except OSError:
        pass  # gone while it was read: what there was may still hold the marker
    finally:
        os.close(fd)
    return found


def marker_of(pid: int) -> str | None:
    """Return the run id in the environment of `pid`, if it has one."""
    environment = environment_of(pid)
    prefix = rundir.MARKER.encode() + b"="
    if prefix not in environment:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def marked(table: Survey, run_id: str, skip: Iterable[int] = ()) -> list[Process]:
    """Return the living processes outside `skip` whose environment names the run."""
    skipped = set(skip)
    skipped.add(os.getpid())
    return [
        process
        for process in table.values()
        if process.is_alive and process.pid not in skipped and marker_of(process.pid) == run_id
    ]


def in_session(table: Survey, leader_pid: int, leader_start: int) -> list[Process]:
    """Return the members of the session and group that a leader, alive or gone, once opened.

    Nothing, when `leader_pid` is somebody else's by now: the number then proves nothing.
    """
    now = table.get(leader_pid)
    if now is not None and now.start_ticks != leader_start:
        return []
    return [
        process
        for process in table.values()
        if leader_pid in (process.sid, process.pgid) and process.start_ticks >= leader_start
    ]


def own_groups(table: Survey, members: Iterable[Process]) -> frozenset[int]:
    """Return the process groups that hold members and nobody else alive."""
    ours = {process.pid for process in members}
    foreign = {process.pgid for process in table.values() if process.is_alive and process.pid not in ours}
    return frozenset(table[pid].pgid for pid in ours) - foreign
