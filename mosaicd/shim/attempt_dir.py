"""The attempt directory: its lock, and the small records that a shim writes once.

All files are opened relative to one descriptor of the directory.  The descriptor carries the lock as long as
the shim lives.  started.json and exit.json are on the disk when the call returns; the fsync of the directory
puts launch.json on the disk with them.  A full disk cannot prevent exit.json: its block is reserved at the
start.
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


class Taken(Exception):
    """Another shim has the lock of this attempt, or had it."""


class AttemptDir:
    """An attempt directory with its lock."""

    def __init__(self, path: str) -> None:
        """Make the directory if it is missing, and take its lock; Taken if another process has the lock."""
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.path = path
        self.dir_fd = os.open(path, _DIRECTORY)
        if not _lock(self.dir_fd):
            os.close(self.dir_fd)
            raise Taken(path)

    def write_launch(self, launch: Launch) -> None:
        """Write launch.json; Taken when it is there, whatever it says."""
        try:
            fd = self._open(rundir.LAUNCH, os.O_EXCL)
        except FileExistsError:
            raise Taken(self.path) from None
        _write_and_close(fd, launch.to_json())

    def write_worker_config(self, content: Json) -> str:
        """Write worker-config.json and return its path."""
        _write_and_close(self._open(rundir.WORKER_CONFIG, os.O_TRUNC), content)
        return os.path.join(self.path, rundir.WORKER_CONFIG)

    def reserve_exit(self) -> None:
        """Claim the block that exit.json will need."""
        fd = self._open(rundir.EXIT + _TEMPORARY, os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, _RESERVED_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        finally:
            os.close(fd)

    def write_durably(self, name: str, content: Json) -> None:
        """Write `name` so that a reader sees all of it or nothing, and a power cut loses nothing."""
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
            return error.errno == errno.ESTALE  # removed on a file server

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
    """Take the lock; the daemon looks at it by holding it for a moment, so one refusal means little."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(dir_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def make_files(files_dir: str, for_worker: bool) -> None:
    """Make the directory that a run keeps over attempts, and in it what its environment and workers name."""
    os.makedirs(files_dir, mode=0o700, exist_ok=True)
    for name in (rundir.CHECKPOINTS, "videos", "tensorboard") if for_worker else (rundir.CHECKPOINTS,):
        try:
            os.mkdir(os.path.join(files_dir, name), 0o700)
        except FileExistsError:
            pass


def boot_id() -> str:
    """Return the kernel's name for this boot."""
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
