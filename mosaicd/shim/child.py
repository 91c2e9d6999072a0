"""Starting, signalling and reaping a worker: only this module does that.

A signal goes through a pidfd after a check of the start time, so it never hits a process that reuses the pid.
A process group is signalled by number only while the number cannot be reused: its leader is not reaped, or a
member was just stopped.  The shim is a subreaper and reaps all orphans below it, so ECHILD means that no
descendant of the worker exists.
"""

import ctypes
import errno
import os
import select
import signal
import socket
from typing import NamedTuple, NoReturn

from mosaicd import procfs, safe_files
from mosaicd.procfs import Process
from mosaicd.protocol.records.orders import ProcessAttributes
from mosaicd.shim import cgroup
from mosaicd.shim.worker_steps import DIRECTORY, STEPS, Plan

_PR_SET_CHILD_SUBREAPER = 36
_KILL_WAIT_MS = 5000
_EXEC = "program"
_NOT_EXECUTED = 127
#: The most bytes of a report about a failed step; a pipe takes them at once.
_MOST_BYTES = 4096
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

    def __init__(self, pid: int, stdout_fd: int, stderr_fd: int) -> None:
        self.pid = pid
        self.start_ticks = procfs.read_start_ticks(pid) or 0
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd
        self.is_reaped = False

    def note_reaped(self) -> None:
        """Note that `reap` has reaped the worker."""
        self.is_reaped = True


def spawn(
    argv: list[str], cwd: str, environment: dict[str, str], control: socket.socket | None,
    process: ProcessAttributes, stdin: str | None = None,
) -> Worker:  # fmt: skip
    """Start `argv` in a new session and process group; raise OSError if it cannot be executed.

    stdin is the file `stdin`, from its first byte, or /dev/null; stdout and stderr are new pipes; of other
    descriptors, only `control` is inherited.
    The steps in the child are in `worker_steps`; an error names the step, and has its errno.
    """
    fds = [_open_stdin(stdin), *os.pipe(), *os.pipe(), *os.pipe()]
    stdin_fd, out_read, out_write, err_read, err_write, error_read, error_write = fds
    control_fd = control.fileno() if control else None
    plan = Plan(cwd, stdin_fd, out_write, err_write, control_fd, error_write, process)
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(plan, argv, environment)
        os.close(fds.pop())
        failure = _read_all(error_read)
        if failure:
            os.waitpid(pid, 0)
            raise _failure_of(failure, argv[0], cwd)
        fds.remove(out_read)
        fds.remove(err_read)
    finally:
        for fd in fds:
            os.close(fd)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Worker(pid, out_read, err_read)


def _become_worker(plan: Plan, argv: list[str], environment: dict[str, str]) -> NoReturn:
    """In the child: take all steps and execute the program, or report the failed step and exit."""
    step = ""
    try:
        for step, take in STEPS:  # noqa: B007  (the handler below reads it)
            take(plan)
        step = _EXEC
        _execute(argv, environment)
    except (OSError, ValueError, MemoryError) as error:
        number = getattr(error, "errno", None) or 0
        text = os.strerror(number) if number else str(error) or type(error).__name__
        os.write(plan.error_fd, f"{step}\0{number}\0{text}".encode(errors="replace")[:_MOST_BYTES])
    finally:
        os._exit(_NOT_EXECUTED)


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    """Execute the program, searched in the PATH of `environment`; raise OSError if that fails.

    An error other than a missing file (no permission, for example) counts more than a missing file.
    """
    name = argv[0]
    searched = environment.get("PATH", os.defpath).split(os.pathsep)
    paths = [name] if "/" in name else [os.path.join(directory, name) for directory in searched]
    missing = refused = None
    for path in paths:
        try:
            os.execve(path, argv, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
        except OSError as error:
            refused = refused or error
    raise refused or missing or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _read_all(fd: int) -> bytes:
    """Return what the child reports; empty when its exec has closed the pipe."""
    found = b""
    while data := os.read(fd, _MOST_BYTES):
        found += data
    return found


def _failure_of(report: bytes, name: str, cwd: str) -> OSError:
    """Return the error of a failed step; it names the program, the directory, or else the step."""
    step, number, text = report.decode(errors="replace").split("\0", 2)
    if not int(number):
        return OSError(0, text)  # for example a NUL in an argument
    named = {_EXEC: name, DIRECTORY: cwd}.get(step, f"the {step} of the worker cannot be set")
    return OSError(int(number), text, named)


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
