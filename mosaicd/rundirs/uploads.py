"""Inputs of runs: files that clients upload before a submit, and that become the `stdin` of a run directory.

The files of uploads are in a directory of their own, on the file system of the run directories, so that an
upload is moved and not copied.  Note: no upload outlives its connection, so the directory is removed at the
start of a daemon.
"""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from threading import Lock

from mosaicd.core.spec import Stdin
from mosaicd.safe_files import NotTrusted, open_regular, remove_tree

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UploadFile:
    """The file of one upload.  Its methods block, and may be called in any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._fd: int | None = None
        self._digest = hashlib.sha256()
        self.size = 0

    def create(self) -> None:
        """Create the file, of mode 0600, and its directory."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock:
            self._fd = os.open(self._path, _CREATE, 0o600)

    def append(self, data: bytes) -> None:
        """Append `data`; raise OSError if the disk is full, or if the file is removed."""
        with self._lock:
            if self._fd is None:
                raise OSError(errno.EBADF, "the upload has ended")
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
            self._digest.update(data)
            self.size += len(data)

    def finish(self) -> Stdin:
        """Return the size and the digest once the content is on the disk."""
        with self._lock:
            if self._fd is None:
                raise OSError(errno.EBADF, "the upload has ended")
            os.fsync(self._fd)
            self._close()
        return Stdin(self.size, self._digest.hexdigest())

    def move_to(self, target: Path) -> None:
        """Move the file; it survives a power loss there after an fsync of the directory of `target`."""
        os.rename(self._path, target)

    def remove(self) -> None:
        """Remove the file, unless it was moved."""
        with self._lock:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class UploadDir:
    """The directory of the uploads; it exists from the first upload on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        """Remove all uploads: their connections were those of an earlier daemon."""
        remove_tree(self.path)

    def file(self, name: str) -> UploadFile:
        """Return the file of a new upload, which is not created yet."""
        return UploadFile(self.path / name)


class Input:
    """The input of an earlier run, open for the copy to another run."""

    def __init__(self, path: Path, size: int) -> None:
        """Open the file; raise OSError if it is missing, no regular file, or not of `size` bytes."""
        self._fd = open_regular(path)
        found = os.fstat(self._fd).st_size
        if found != size:
            self.close()
            raise NotTrusted(errno.EPERM, f"it has {found} bytes, not {size}", str(path))

    def link_to(self, target: Path) -> None:
        """Make `target` a link to the file, or a copy of it where the file system has no links."""
        try:
            os.link(f"/proc/self/fd/{self._fd}", target, follow_symlinks=True)
        except OSError:
            self._copy_to(target)

    def _copy_to(self, target: Path) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        with (
            os.fdopen(os.dup(self._fd), "rb") as source,
            os.fdopen(os.open(target, _CREATE, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
