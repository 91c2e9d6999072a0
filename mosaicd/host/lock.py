"""Locks for exactly one daemon per socket and state directory, and the socket that is bound under them.

A lock is flock(2) on a file that is never removed: after a removal, two daemons could lock two files of the
same name.  The content of the file (pid, start time) is only for the error message of a second daemon.  The
kernel drops the lock when its holder ends, so a kill -9 leaves nothing to clean up.  A child that a killed
daemon had just forked holds the lock until its exec; the next daemon waits for that.
"""

import fcntl
import json
import os
import socket as sockets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mosaicd import __version__, procfs

BACKLOG = 4096
#: How long to wait for the lock of a dead daemon: usually an instant, longer on a stalled machine.
_TRIES, _PAUSE_S = 2000, 0.005
_LISTENING = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix


class CannotServe(Exception):
    """The daemon cannot serve here; the message is one sentence for the user."""

    exit_code = 2


class AlreadyRunning(CannotServe):
    """Another daemon uses the state directory or the socket; the message names it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock, as written in its file.  `started_at` in Unix seconds."""

    pid: int
    version: str
    socket: str
    state_dir: str
    started_at: float

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started_at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
        return (
            f"mosaicd {self.version} (pid {self.pid}, since {since}, "
            f"socket {self.socket}, state directory {self.state_dir})"
        )


class Locks:
    """Both locks, held until `close` or the end of the process."""

    def __init__(self, fds: list[int], holder: Holder) -> None:
        self._fds = fds
        self.holder = holder

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that hold the locks."""
        return tuple(self._fds)

    def close(self) -> None:
        """Release both locks; idempotent."""
        while self._fds:
            os.close(self._fds.pop())


def acquire(state_dir: Path, socket: Path, *, started_at: float) -> Locks:
    """Return both locks; missing directories are created (0700).

    Raises AlreadyRunning with the daemon that holds one, or CannotServe with the reason why a directory or
    file is refused.  In both cases no lock is held.
    """
    holder = Holder(os.getpid(), __version__, str(socket), str(state_dir), started_at)
    _prepare_state_dir(state_dir)
    _prepare_socket_dir(socket.parent)
    fds: list[int] = []
    files = ((state_dir / "lock", f"state directory {state_dir}"), (lock_path(socket), f"socket {socket}"))
    try:
        for path, locked in files:
            fds.append(_open_locked(path, locked))
    except CannotServe:
        for fd in fds:
            os.close(fd)
        raise
    return _write_holder(fds, holder)


def inherit(fds: Sequence[int], state_dir: Path, socket: Path, *, started_at: float) -> Locks:
    """Return the locks that this process held before its exec; raise CannotServe if it did not."""
    holder = Holder(os.getpid(), __version__, str(socket), str(state_dir), started_at)
    for fd, path in zip(fds, (state_dir / "lock", lock_path(socket)), strict=True):
        try:
            is_same_file = os.path.samestat(os.fstat(fd), os.stat(path))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotServe(f"the lock {path} was lost in the exec: {error.strerror}") from error
        if not is_same_file:
            raise CannotServe(f"the lock {path} is not the file that was locked")
    return _write_holder(list(fds), holder)


def _write_holder(fds: list[int], holder: Holder) -> Locks:
    """Write the holder into both lock files and return the locks; raise CannotServe and release both."""
    locks = Locks(fds, holder)
    try:
        for fd in fds:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(holder)).encode() + b"\n", 0)
    except OSError as error:
        locks.close()
        paths = f"{Path(holder.state_dir) / 'lock'} and {lock_path(Path(holder.socket))}"
        raise CannotServe(f"cannot write the locks {paths}: {error.strerror}") from error
    return locks


def lock_path(socket: Path) -> Path:
    """Return the lock file of a socket."""
    return socket.with_name(socket.name + ".lock")


def bind(socket: Path, locks: Locks) -> sockets.socket:
    """Return a listening socket at `socket` (0600); connections are accepted by the kernel from here on.

    A socket file without a listener was left by a killed daemon and is replaced; because the caller holds
    `locks`, no other daemon is about to listen on it.  Raises CannotServe if another file is in the way.
    """
    if locks.holder.socket != str(socket):
        raise ValueError(f"the lock held is that of {locks.holder.socket}, not of {socket}")
    listening = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        _remove_stale_socket(socket)
        os.fchmod(listening.fileno(), 0o600)  # before bind, so that the file never has another mode
        listening.bind(str(socket))
        os.chmod(socket, 0o600)
        listening.listen(BACKLOG)
    except (OSError, CannotServe) as error:
        listening.close()
        if isinstance(error, CannotServe):
            raise
        raise CannotServe(f"cannot listen on {socket}: {error.strerror}") from error
    listening.setblocking(False)
    return listening


def adopt(passed: list[sockets.socket]) -> tuple[sockets.socket, Path]:
    """Return the one listening socket that systemd passed, and its path; raise CannotServe otherwise."""
    if len(passed) != 1:
        raise CannotServe(f"systemd passed {len(passed)} sockets; mosaicd needs exactly one")
    listening = passed[0]
    name = listening.getsockname()
    is_stream = listening.family == sockets.AF_UNIX and listening.type == sockets.SOCK_STREAM
    if not is_stream or not listening.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN):
        raise CannotServe(
            "systemd passed a socket that is not a listening Unix stream socket (ListenStream=)"
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise CannotServe("the socket that systemd passed has no path; mosaicd needs one (ListenStream=/...)")
    listening.setblocking(False)
    return listening, Path(name)


def remove(socket: Path, locks: Locks) -> None:
    """Remove the file of a socket that `bind` created, so that clients see no stale socket."""
    if locks.holder.socket == str(socket):
        socket.unlink(missing_ok=True)


# --- refusals -------------------------------------------------------------------------------------


def _open_locked(path: Path, locked: str) -> int:
    """Return a descriptor of the lock file that holds the lock; `locked` is what the lock protects."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotServe(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise CannotServe(f"the lock {path} belongs to another user; remove it or choose another place")
        _lock(fd)
    except BlockingIOError as error:
        holder = _holder(fd)
        os.close(fd)
        raise AlreadyRunning(_already_in_use(locked, holder)) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int) -> None:
    """Take the lock; raise BlockingIOError if another daemon holds it."""
    for _ in range(_TRIES):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            process = procfs.read_process(holder.pid) if holder is not None else None
            if holder is None or (process is not None and process.is_alive):
                raise
            time.sleep(_PAUSE_S)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _already_in_use(locked: str, holder: Holder | None) -> str:
    user = str(holder) if holder else "another daemon that is starting"
    return (
        f"the {locked} is already in use by {user}; use that daemon, stop it first, "
        "or start this one with its own --state-dir and --socket"
    )


def _holder(fd: int) -> Holder | None:
    """Return the holder from the lock file, or None if the holder has not written it yet."""
    try:
        fields = json.loads(os.pread(fd, 8192, 0))
        return Holder(
            int(fields["pid"]), str(fields["version"]), str(fields["socket"]),
            str(fields["state_dir"]), float(fields["started_at"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return None


def _prepare_state_dir(path: Path) -> None:
    """Create `path` (0700), or check that it is ours and that no other user may write to it."""
    status = _make_directory(path, "state directory")
    if status.st_uid != os.geteuid():
        raise CannotServe(f"the state directory {path} belongs to uid {status.st_uid}, not to you")
    if status.st_mode & 0o022:
        raise CannotServe(f"the state directory {path} can be written by other users; chmod go-w {path}")


def _prepare_socket_dir(path: Path) -> None:
    """Create `path` (0700), or check that only we and root can remove the socket from it."""
    status = _make_directory(path, "socket's directory")
    if status.st_uid not in (0, os.geteuid()):
        raise CannotServe(f"the socket's directory {path} belongs to uid {status.st_uid}, not to you")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise CannotServe(f"the socket's directory {path} can be written by other users; chmod go-w {path}")


def _make_directory(path: Path, role: str) -> os.stat_result:
    """Create `path` and its parents (0700) if they are missing; return the status of `path`."""
    try:
        for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink() and path.lstat().st_uid not in (0, os.geteuid()):
            raise CannotServe(f"the {role} {path} is a symbolic link of another user")
        status = path.stat()
    except OSError as error:
        raise CannotServe(f"cannot create the {role} {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CannotServe(f"the {role} {path} is not a directory")
    return status


def _remove_stale_socket(socket: Path) -> None:
    """Remove a socket file without a listener; raise CannotServe for one with a listener, and for other
    files."""
    try:
        mode = socket.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotServe(f"{socket} exists and is not a socket; remove it, or choose another --socket")
    if os.path.realpath(socket) in (os.path.realpath(path) for path in _listening_paths()):
        raise CannotServe(
            f"another program listens on {socket} already, most likely systemd for "
            "mosaicd.socket; use `systemctl --user start mosaicd`, or choose another --socket"
        )
    socket.unlink(missing_ok=True)


def _listening_paths() -> Iterator[str]:
    """Yield the path of every listening Unix socket, without connecting, which could activate a service."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            words = line.rstrip("\n").split(maxsplit=7)
            if len(words) == 8 and words[7].startswith("/") and int(words[3], 16) & _LISTENING:
                yield words[7]
