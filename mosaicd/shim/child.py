"""Starting, signalling and reaping a worker: only this module does that.

A signal goes through a pidfd after a check of the start time, so it never hits a process that reuses the pid.
A process group is signalled by number only while the number cannot be reused: its leader is not reaped, or a
member was just stopped.  The shim is a subreaper and reaps all orphans below it, so ECHILD means that no
descendant of the worker exists.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
from typing import NamedTuple

from mosaicd import procfs, safe_files
from mosaicd.procfs import Process
from mosaicd.shim import cgroup

_PR_SET_CHILD_SUBREAPER = 36
_KILL_WAIT_MS = 5000
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make this process the parent of all orphans below it; raise OSError if the kernel refuses."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def set_name(name: str) -> None:
    """Set the name of this process in `ps -o comm`; at most 15 bytes."""
    file = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, name.encode())
    finally:
        os.close(file)


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
        """Note that `reap` has reaped the worker, so that subprocess does not try to."""
        self.is_reaped = True
        self._process.returncode = 0


def spawn(
    argv: list[str],
    cwd: str,
    environment: dict[str, str],
    control: socket.socket | None,
    stdin: str | None = None,
) -> Worker:
    """Start `argv` in a new session and process group; raise OSError if it cannot be executed.

    stdin is the file `stdin`, from its first byte, or /dev/null; stdout and stderr are new pipes; of other
    descriptors, only `control` is inherited.
    """
    stdin_fd = _open_stdin(stdin)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=stdin_fd, stdout=out_write, stderr=err_write,
            start_new_session=True, close_fds=True, pass_fds=(control.fileno(),) if control else (),
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        os.close(out_read)
        os.close(err_read)
        if isinstance(error, OSError):
            raise
        raise OSError(0, str(error)) from None  # for example a NUL in an argument
    finally:
        os.close(stdin_fd)
        os.close(out_write)
        os.close(err_write)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Worker(process, out_read, err_read)


def _open_stdin(path: str | None) -> int:
    """Return a descriptor of the program's standard input; raise OSError if it is no regular file."""
    if path is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = safe_files.open_regular(path)
    os.set_blocking(descriptor, True)
    return descriptor


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this process; return False if it has ended or may not be signalled."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        current = procfs.read_process(process.pid)  # after pidfd_open, so it is the process of the pidfd
        if current is None or current.start_ticks != process.start_ticks:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def kill_and_wait(pid: int, start_ticks: int) -> None:
    """Kill this process, if it still runs, and wait up to 5 s for its end."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        current = procfs.read_process(pid)
        if current is not None and current.start_ticks == start_ticks:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(_KILL_WAIT_MS)
    except OSError:
        pass  # another user's process: it keeps its lock, and the caller sees that
    finally:
        os.close(fd)


def send_to_child(pid: int, number: signal.Signals) -> None:
    """Signal a child of this process; its pid is not reused before it is reaped."""
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it belongs to another user (a set-uid program): the kill sequence then does not end


def try_kill_cgroup(group_dir: str) -> bool:
    """Kill all processes of a version-2 control group through the kernel; return False if it cannot.

    This process is never killed: if it is in the group, nothing is done.
    """
    if os.getpid() in cgroup.pids(group_dir):
        return False
    return cgroup.try_write(group_dir, "cgroup.kill", "1")


def send_to_group(pgid: int, number: signal.Signals) -> None:
    """Signal a process group at one instant, so that no member escapes by forking.

    Note: only for a group with an unreaped leader or a stopped member; otherwise the number may be reused.
    """
    try:
        os.killpg(pgid, number)
    except OSError:
        pass


def reap() -> tuple[list[Ended], bool]:
    """Reap all children that have ended; return them, and whether no child remains."""
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
