"""Why a run stands still: what the kernel and the worker itself say of it, written down before it is killed.

Asked for by a stop whose kind is a fault of liveness.  Everything in /proc is read at once; only Python's own
stacks take a moment, since the worker writes them, so the kill waits for those, never longer than its bound.
Note: the signal that asks for stacks kills a program that does not expect it, so it
is sent only to a process of the tree that announced itself in the stacks file *and* has a handler right now.
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

#: Kinds of stops that a post-mortem goes before.
KINDS = frozenset({"heartbeat_lost", "stuck", "start_timeout"})

_ANNOUNCED = re.compile(rb"^mosaic-stacks pid=(\d{1,10}) signal=(\d{1,2})$", re.MULTILINE)
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_CURRENT = re.compile(rb"^Current thread 0x.*\n  \S", re.MULTILINE)
_FRAME = re.compile(r'File "([^"]*)", line (\d+) in (.*)')
_LOOK_S = 0.02
_QUIET_S = 0.1  # stacks are whole when nothing was added to them for this long
_PROCESSES = 64
_THREADS = 32
_OPEN_FILES = 100
_LINES = 20
_TAIL_BYTES = 16 << 10
_STACKS_BYTES = 256 << 10
_TEXT = 200


class PostMortem:
    """At most one an attempt."""

    def __init__(self, tree: Tree, dir_fd: int, bound_s: float) -> None:
        self._tree = tree
        self._dir_fd = dir_fd
        self._bound_s = bound_s
        self._text = ""
        self._stacks_from = 0
        self._stacks_size = 0
        self._grew_at = 0.0
        self._look_at: float | None = None
        self._give_up_at = 0.0
        #: The stop that waits for it.
        self.stop: BegunStop | None = None
        #: What the cause of the end says of it; None until it is written.
        self.summary: PostMortemSummary | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether stacks are still being written."""
        return self._look_at is not None

    def next_at(self) -> float | None:
        """When `tick` has something to do."""
        return self._look_at

    def try_delay(self, stop: "BegunStop", now: float) -> bool:
        """Begin a post-mortem if the kind of the stop needs one; return whether the stop has to wait."""
        if stop.kind not in KINDS:
            return False
        if self.stop is None:
            self._begin(stop, now)
        return self.is_waiting

    def _begin(self, stop: "BegunStop", now: float) -> None:
        """Read what there is to read, and ask for stacks where somebody can tell them."""
        self.stop = stop
        members = self._tree.look().members
        leader = self._tree.leader()
        members.sort(key=lambda process: (leader is None or process.pid != leader.pid, process.pid))
        self._text = _head(stop, len(members)) + "".join(map(_of_process, members[:_PROCESSES]))
        self.summary = _summary(members)
        stacks = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)
        self._stacks_from = self._stacks_size = len(stacks)
        asked = self._ask(stacks, members) if self._bound_s > 0 else 0
        if asked:
            self._give_up_at, self._grew_at, self._look_at = now + self._bound_s, now, now + _LOOK_S
        else:
            self._write()

    def tick(self, now: float) -> bool:
        """Look again; True when it has just been finished."""
        if self._look_at is None or now < self._look_at:
            return False
        stacks = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)
        if len(stacks) != self._stacks_size:
            self._stacks_size, self._grew_at = len(stacks), now
        has_told = _is_whole(stacks[self._stacks_from :]) and now - self._grew_at >= _QUIET_S
        if has_told or now >= self._give_up_at:
            self._write()
            return True
        self._look_at = now + _LOOK_S
        return False

    def finish(self) -> None:
        """Write what there is: the worker has ended meanwhile."""
        if self.is_waiting:
            self._write()

    def _ask(self, stacks: bytes, members: list[Process]) -> int:
        """Ask every process that can tell for its stacks; return how many were asked."""
        known = {process.pid: process for process in members}
        announced = {int(pid): int(number) for pid, number in _ANNOUNCED.findall(stacks)}
        return sum(
            child.send(known[pid], signal.Signals(number))
            for pid, number in announced.items()
            if pid in known and number in _SIGNALS and _has_handler(pid, number)
        )

    def _write(self) -> None:
        self._look_at = None
        told = _read(self._dir_fd, rundir.STACKS, _STACKS_BYTES)[self._stacks_from :]
        stacks = told.decode(errors="replace")
        text = self._text + (f"\n== Python stacks\n{stacks}" if stacks else "")
        for name in (rundir.STDOUT, rundir.STDERR):
            text += f"\n== the last lines of {name}\n{_last_lines(self._dir_fd, name)}"
        assert self.summary is not None
        if stacks:
            self.summary = self.summary.changed(python=_innermost(stacks))
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(rundir.POST_MORTEM, flags, 0o600, dir_fd=self._dir_fd)
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode(errors="replace"))
            self.summary = self.summary.changed(file=rundir.POST_MORTEM)
        except OSError:
            pass  # a full disk: the summary still tells the most of it


def _head(stop: "BegunStop", count: int) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stop.at))
    return f"{stop.kind} at {at}; {count} processes\n"


def _summary(members: list[Process]) -> PostMortemSummary:
    if not members:
        return PostMortemSummary(processes=0)
    waits_in = _proc(members[0].pid, "wchan")
    return PostMortemSummary(
        processes=len(members),
        state=members[0].state,
        waits_in=waits_in[:_TEXT] if waits_in not in ("", "0") else None,
    )


def _of_process(process: Process) -> str:
    pid = process.pid
    command = _proc(pid, "cmdline").replace("\0", " ").strip()
    lines = [f"\n== process {pid}, parent {process.ppid}, state {process.state}"]
    lines += [f"command   {command[:_TEXT]}"]
    lines += [f"waits in  {_proc(pid, 'wchan') or '?'}", f"syscall   {_proc(pid, 'syscall') or '?'}"]
    lines += [f"status    {line}" for line in _proc(pid, "status").splitlines() if line.startswith(_STATUS)]
    stack = _proc(pid, "stack")
    if stack:
        lines += ["kernel stack", *(f"  {line}" for line in stack.splitlines())]
    threads = _names(f"/proc/{pid}/task")
    if len(threads) > 1:
        lines += ["threads", *(_of_thread(pid, thread) for thread in threads[:_THREADS])]
    return "\n".join([*lines, "open files", *_open_files(pid), ""])


_STATUS = ("Name:", "VmRSS:", "Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "voluntary", "nonvoluntary")


def _of_thread(pid: int, thread: str) -> str:
    place = f"task/{thread}"
    name, waits_in = _proc(pid, f"{place}/comm"), _proc(pid, f"{place}/wchan")
    return f"  {thread}  {name}  waits in {waits_in or '?'}"


def _open_files(pid: int) -> list[str]:
    shown = []
    names = _names(f"/proc/{pid}/fd")
    for name in names[:_OPEN_FILES]:
        try:
            shown.append(f"  {name} -> {os.readlink(f'/proc/{pid}/fd/{name}')[: 2 * _TEXT]}")
        except OSError:
            continue  # closed meanwhile
    if len(names) > _OPEN_FILES:
        shown.append(f"  and {len(names) - _OPEN_FILES} more")
    return shown


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory), key=lambda name: (len(name), name))
    except OSError:
        return []


def _proc(pid: int, name: str) -> str:
    """Return what /proc says, empty where it says nothing to us or the process is gone."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read(8192).decode(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _has_handler(pid: int, number: int) -> bool:
    for line in _proc(pid, "status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & (1 << (number - 1)))
    return False


def _read(dir_fd: int, name: str, limit_bytes: int, tail: bool = False) -> bytes:
    """Return the first (or last) bytes of a regular file beside our records; empty where there is none."""
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


def _is_whole(told: bytes) -> bool:
    """Whether stacks may be all there: a list of threads has the one that was asked, often as its last."""
    return bool(told) and (b"hread 0x" not in told or _CURRENT.search(told) is not None)


def _innermost(stacks: str) -> str:
    """Return where the thread that took the signal is: `train.py:12 in step`."""
    own = stacks.partition("Current thread")[2] or stacks
    frame = _FRAME.search(own)
    return f"{os.path.basename(frame[1])}:{frame[2]} in {frame[3]}"[:_TEXT] if frame else "no frame"
