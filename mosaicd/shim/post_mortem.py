"""The post-mortem of a hanging run: facts from /proc and Python stacks, saved before the run is stopped.

A stop because of a lost heartbeat, no progress or a start timeout causes a post-mortem.  The facts in /proc
are read immediately.  The worker writes its Python stacks itself, so the stop waits for them, up to a limit.
Note: the signal that requests stacks kills a program that does not expect it.  It is sent only to a process
of the tree that is announced in the stacks file and has a handler at this moment.
"""

import os
import re
import signal
import time
from typing import TYPE_CHECKING

from mosaicd.procfs import Process
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt import PostMortemSummary
from mosaicd.safe_files import open_regular
from mosaicd.shim import child
from mosaicd.shim.tree import Tree

if TYPE_CHECKING:
    from mosaicd.shim.ending import BegunStop

#: Kinds of stops that cause a post-mortem.
KINDS = frozenset({"heartbeat_lost", "stuck", "start_timeout"})

_ANNOUNCED = re.compile(rb"^mosaic-stacks pid=(\d{1,10}) signal=(\d{1,2})$", re.MULTILINE)
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_CURRENT = re.compile(rb"^Current thread 0x.*\n  \S", re.MULTILINE)
_FRAME = re.compile(r'File "([^"]*)", line (\d+) in (.*)')
_CHECK_S = 0.02
_QUIET_S = 0.1  # stacks are complete if the file has not grown for this time
_PROCESSES = 64
_THREADS = 32
_OPEN_FILES = 100
_LINES = 20
_TAIL_BYTES = 16 << 10
_STACKS_BYTES = 256 << 10
_TEXT = 200


class PostMortem:
    """The post-mortem of an attempt, at most one."""

    def __init__(self, tree: Tree, dir_fd: int, limit_s: float) -> None:
        self._tree = tree
        self._dir_fd = dir_fd
        self._limit_s = limit_s
        self._text = ""
        self._stacks_from = 0
        self._stacks_size = 0
        self._grew_at = 0.0
        self._check_at: float | None = None
        self._deadline = 0.0
        #: The stop that waits for the post-mortem.
        self.stop: BegunStop | None = None
        #: The summary for exit.json and the cause; None without a post-mortem.
        self.summary: PostMortemSummary | None = None

    @property
    def is_waiting(self) -> bool:
        """Return whether the stop waits for stacks."""
        return self._check_at is not None

    def next_at(self) -> float | None:
        """Return when `tick` is due, or None."""
        return self._check_at

    def try_delay(self, stop: "BegunStop", now: float) -> bool:
        """Begin a post-mortem if the kind of the stop needs one; return whether the stop has to wait."""
        if stop.kind not in KINDS:
            return False
        if self.stop is None:
            self._begin(stop, now)
        return self.is_waiting

    def _begin(self, stop: "BegunStop", now: float) -> None:
        """Read the members of the process tree in /proc, and ask those that can for their Python stacks.

        If no process is asked, the post-mortem is written now; otherwise `tick` writes it.
        """
        self.stop = stop
        members = self._tree.read_members().processes
        leader = self._tree.leader()
        members.sort(key=lambda process: (leader is None or process.pid != leader.pid, process.pid))
        self._text = _header(stop, len(members)) + "".join(map(_process_section, members[:_PROCESSES]))
        self.summary = _summary(members)
        stacks = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)
        self._stacks_from = self._stacks_size = len(stacks)
        requested = self._request_stacks(stacks, members) if self._limit_s > 0 else 0
        if requested:
            self._deadline, self._grew_at, self._check_at = now + self._limit_s, now, now + _CHECK_S
        else:
            self._write()

    def tick(self, now: float) -> bool:
        """Check the stacks if that is due; return whether this call has finished the post-mortem."""
        if self._check_at is None or now < self._check_at:
            return False
        stacks = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)
        if len(stacks) != self._stacks_size:
            self._stacks_size, self._grew_at = len(stacks), now
        is_complete = _is_complete(stacks[self._stacks_from :]) and now - self._grew_at >= _QUIET_S
        if is_complete or now >= self._deadline:
            self._write()
            return True
        self._check_at = now + _CHECK_S
        return False

    def finish(self) -> None:
        """Write what is known, if stacks are awaited: the worker has ended."""
        if self.is_waiting:
            self._write()

    def _request_stacks(self, stacks: bytes, members: list[Process]) -> int:
        """Request the stacks of all processes that can write them; return the number of requests."""
        known = {process.pid: process for process in members}
        announced = {int(pid): int(number) for pid, number in _ANNOUNCED.findall(stacks)}
        return sum(
            child.send(known[pid], signal.Signals(number))
            for pid, number in announced.items()
            if pid in known and number in _SIGNALS and _has_handler(pid, number)
        )

    def _write(self) -> None:
        self._check_at = None
        new_stacks = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)[self._stacks_from :]
        stacks = new_stacks.decode(errors="replace")
        text = self._text + (f"\n== Python stacks\n{stacks}" if stacks else "")
        for name in (rundir.STDOUT, rundir.STDERR):
            text += f"\n== the last lines of {name}\n{_last_lines(self._dir_fd, name)}"
        assert self.summary is not None
        if stacks:
            self.summary = self.summary.changed(python=_innermost_frame(stacks))
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(rundir.POST_MORTEM, flags, 0o600, dir_fd=self._dir_fd)
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode(errors="replace"))
            self.summary = self.summary.changed(file=rundir.POST_MORTEM)
        except OSError:
            pass  # a full disk: the summary still has the most important facts


def _header(stop: "BegunStop", count: int) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stop.at))
    return f"{stop.kind} at {at}; {count} processes\n"


def _summary(members: list[Process]) -> PostMortemSummary:
    if not members:
        return PostMortemSummary(processes=0)
    waits_in = _read_proc(members[0].pid, "wchan")
    return PostMortemSummary(
        processes=len(members),
        state=members[0].state,
        waits_in=waits_in[:_TEXT] if waits_in not in ("", "0") else None,
    )


def _process_section(process: Process) -> str:
    pid = process.pid
    command = _read_proc(pid, "cmdline").replace("\0", " ").strip()
    lines = [f"\n== process {pid}, parent {process.ppid}, state {process.state}"]
    lines += [f"command   {command[:_TEXT]}"]
    lines += [
        f"waits in  {_read_proc(pid, 'wchan') or '?'}",
        f"syscall   {_read_proc(pid, 'syscall') or '?'}",
    ]
    lines += [
        f"status    {line}" for line in _read_proc(pid, "status").splitlines() if line.startswith(_STATUS)
    ]
    stack = _read_proc(pid, "stack")
    if stack:
        lines += ["kernel stack", *(f"  {line}" for line in stack.splitlines())]
    threads = _list_names(f"/proc/{pid}/task")
    if len(threads) > 1:
        lines += ["threads", *(_thread_line(pid, thread) for thread in threads[:_THREADS])]
    return "\n".join([*lines, "open files", *_open_files(pid), ""])


_STATUS = ("Name:", "VmRSS:", "Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "voluntary", "nonvoluntary")


def _thread_line(pid: int, thread: str) -> str:
    directory = f"task/{thread}"
    name, waits_in = _read_proc(pid, f"{directory}/comm"), _read_proc(pid, f"{directory}/wchan")
    return f"  {thread}  {name}  waits in {waits_in or '?'}"


def _open_files(pid: int) -> list[str]:
    shown = []
    names = _list_names(f"/proc/{pid}/fd")
    for name in names[:_OPEN_FILES]:
        try:
            shown.append(f"  {name} -> {os.readlink(f'/proc/{pid}/fd/{name}')[: 2 * _TEXT]}")
        except OSError:
            continue  # closed meanwhile
    if len(names) > _OPEN_FILES:
        shown.append(f"  and {len(names) - _OPEN_FILES} more")
    return shown


def _list_names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory), key=lambda name: (len(name), name))
    except OSError:
        return []


def _read_proc(pid: int, name: str) -> str:
    """Return a file of /proc/PID; empty if the process has ended or the file cannot be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read(8192).decode(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _has_handler(pid: int, number: int) -> bool:
    for line in _read_proc(pid, "status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & (1 << (number - 1)))
    return False


def _read(dir_fd: int, name: str, limit_bytes: int, tail: bool = False) -> bytes:
    """Return the first (or last) bytes of a regular file of the attempt; empty if it cannot be read."""
    try:
        fd = open_regular(name, dir_fd)
    except OSError:
        return b""
    try:
        return os.pread(fd, limit_bytes, max(0, os.fstat(fd).st_size - limit_bytes) if tail else 0)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _last_lines(dir_fd: int, name: str) -> str:
    lines = _read(dir_fd, name, _TAIL_BYTES, tail=True).decode(errors="replace").splitlines()
    return "".join(f"{line}\n" for line in lines[-_LINES:])


def _is_complete(new_stacks: bytes) -> bool:
    """Return whether stacks may be complete: if they list threads, the current thread is among them."""
    return bool(new_stacks) and (b"hread 0x" not in new_stacks or _CURRENT.search(new_stacks) is not None)


def _innermost_frame(stacks: str) -> str:
    """Return the innermost frame of the thread that got the signal, as in `train.py:12 in step`."""
    own = stacks.partition("Current thread")[2] or stacks
    frame = _FRAME.search(own)
    return f"{os.path.basename(frame[1])}:{frame[2]} in {frame[3]}"[:_TEXT] if frame else "no frame"
