"""The attempt directory: its lock, and the small records that a shim writes once.

All files are opened relative to one descriptor of the directory.  The descriptor holds the lock as long as
the shim lives.  `write_durably` returns when its file is on the disk; its fsync of the directory also puts
the name of launch.json there, but not its content.  A full disk cannot prevent exit.json: the shim reserves
a block for it at the start.
"""

import errno
import fcntl
import json
import os
import time

from mosaicd.protocol import Json, rundir
from mosaicd.protocol.records.attempt import Launch

_TEMPORARY = ".tmp"
_RESERVED_BYTES = 4096
_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.005
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class AttemptTaken(Exception):
    """Another shim holds the lock of this attempt, or held it and wrote launch.json."""


class AttemptDir:
    """An attempt directory with its lock."""

    def __init__(self, path: str) -> None:
        """Make the directory if it is missing, and take its lock.

        Raises AttemptTaken if another shim has it.
        """
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.path = path
        self.dir_fd = os.open(path, _DIRECTORY)
        if not _lock(self.dir_fd):
            os.close(self.dir_fd)
            raise AttemptTaken(path)

    def write_launch(self, launch: Launch) -> None:
        """Write launch.json; raise AttemptTaken if the file exists, whatever it contains."""
        try:
            fd = self._open(rundir.LAUNCH, os.O_EXCL)
        except FileExistsError:
            raise AttemptTaken(self.path) from None
        _write_and_close(fd, launch.to_json())

    def write_worker_config(self, content: Json) -> str:
        """Write worker-config.json and return its path."""
        _write_and_close(self._open(rundir.WORKER_CONFIG, os.O_TRUNC), content)
        return os.path.join(self.path, rundir.WORKER_CONFIG)

    def reserve_exit(self) -> None:
        """Reserve the disk block for exit.json; raise OSError if the disk is full."""
        fd = self._open(rundir.EXIT + _TEMPORARY, os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, _RESERVED_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        finally:
            os.close(fd)

    def write_durably(self, name: str, content: Json) -> None:
        """Write the file atomically; it is on the disk when this returns, so a power cut does not lose it."""
        temporary = name + _TEMPORARY
        fd = self._open(temporary, 0)
        try:
            data = _encode(content)
            _write_all(fd, data)
            os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=self.dir_fd, dst_dir_fd=self.dir_fd)
        os.fsync(self.dir_fd)

    def is_removed(self) -> bool:
        """Return whether the directory was removed; then no file can be made in it."""
        try:
            return os.fstat(self.dir_fd).st_nlink == 0
        except OSError as error:
            return error.errno == errno.ESTALE  # a file server reports this for a removed directory

    def open_log(self, name: str) -> int:
        """Open a file for appending; the descriptor is not inherited."""
        return self._open(name, os.O_APPEND)

    def remove(self, name: str) -> None:
        """Remove a file of the attempt."""
        os.unlink(name, dir_fd=self.dir_fd)

    def _open(self, name: str, flags: int) -> int:
        return os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600, dir_fd=self.dir_fd
        )


def _lock(dir_fd: int) -> bool:
    """Take the lock; try some times, because the daemon also takes it for a moment to test it."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(dir_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def make_files_dir(files_dir: str, for_worker: bool) -> None:
    """Make the files directory of a run, which all its attempts share, and its subdirectories."""
    os.makedirs(files_dir, mode=0o700, exist_ok=True)
    for name in (rundir.CHECKPOINTS, "videos", "tensorboard") if for_worker else (rundir.CHECKPOINTS,):
        try:
            os.mkdir(os.path.join(files_dir, name), 0o700)
        except FileExistsError:
            pass


def boot_id() -> str:
    """Return the boot id of the kernel."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _encode(content: Json) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _write_and_close(fd: int, content: Json) -> None:
    try:
        _write_all(fd, _encode(content))
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
