"""Starting, signalling and reaping a worker: the only code that does any of the three.

A signal goes through a pidfd whose process was checked to be the one meant, so a recycled pid is never
hit.  A group is signalled by its number only while something pins that number: our leader, unreaped, or
a member that we have just stopped.  The shim is a subreaper: `reap` collects everything the tree leaves
behind, and "no child left" (ECHILD) therefore means that nothing descended from the worker is alive.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
from typing import NamedTuple

from mosaicd import procfs
from mosaicd.procfs import Process
from mosaicd.shim import cgroup

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_END_WAIT_MS = 5000
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Have the kernel hand us every orphan below us; OSError where it will not."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def set_name(name: str) -> None:
    """Set what `ps -o comm` shows of this process; at most 15 bytes."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


class Ended(NamedTuple):
    """How a process ended: exactly one of `code` and `signal` is set."""

    pid: int
    code: int | None
    signal: int | None
    core_dumped: bool
    utime_s: float
    stime_s: float
    maxrss_kb: int


class Worker:
    """A started worker: its identity and the read ends of its pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]", stdout_fd: int, stderr_fd: int) -> None:
        self._process = process
        self.pid = process.pid
        self.start_ticks = procfs.read_start_ticks(process.pid) or 0
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd
        self.is_reaped = False

    def note_reaped(self) -> None:
        """The loop's `reap` collected it; subprocess must not try to."""
        self.is_reaped = True
        self._process.returncode = 0


def spawn(argv: list[str], cwd: str, environment: dict[str, str], control: socket.socket | None) -> Worker:
    """Start `argv` in a session and group of its own; OSError when it cannot be executed.

    stdin is /dev/null, stdout and stderr are new pipes, and nothing else is inherited but `control`.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out_write, stderr=err_write,
            start_new_session=True, close_fds=True, pass_fds=(control.fileno(),) if control else (),
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        os.close(out_read)
        os.close(err_read)
        if isinstance(error, OSError):
            raise
        raise OSError(0, str(error)) from None  # a NUL in an argument, say
    finally:
        os.close(out_write)
        os.close(err_write)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Worker(process, out_read, err_read)


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False when it has gone or may not be signalled."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        now = procfs.read_process(process.pid)  # after the pidfd: it cannot change its meaning any more
        if now is None or now.start_ticks != process.start_ticks:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def end(pid: int, start_ticks: int) -> None:
    """Kill this process, where it is still there, and wait a moment until the kernel has let go of it."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        now = procfs.read_process(pid)
        if now is not None and now.start_ticks == start_ticks:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            gone = select.poll()
            gone.register(fd, select.POLLIN)
            gone.poll(_END_WAIT_MS)
    except OSError:
        pass  # another user's: the lock that it holds says the rest
    finally:
        os.close(fd)


def send_to_child(pid: int, number: signal.Signals) -> None:
    """Signal our own child, which keeps its pid until we reap it."""
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it belongs to another user (a set-uid program): the kill sequence then does not end


def try_kill_cgroup(group_dir: str) -> bool:
    """Kill all processes of a version-2 control group through the kernel; False if it cannot.

    This process is never killed: if it is in the group, nothing is done.
    """
    if os.getpid() in cgroup.pids(group_dir):
        return False
    return cgroup.try_write(group_dir, "cgroup.kill", "1")


def send_to_group(pgid: int, number: signal.Signals) -> None:
    """Signal a whole group at one instant, so that nothing in it can fork away.

    Only for a group that an unreaped leader or a stopped member of ours pins.
    """
    try:
        os.killpg(pgid, number)
    except OSError:
        pass


def reap() -> tuple[list[Ended], bool]:
    """Collect every child that has ended; the flag says that none is left at all."""
    ended: list[Ended] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, True
        if pid == 0:
            return ended, False
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        ended.append(
            Ended(pid, code, number, os.WCOREDUMP(status), usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
        )
