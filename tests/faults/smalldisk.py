"""A small disk that can be full: a tmpfs in a private mount namespace of this process.

The namespace has no name, so the kernel unmounts the tmpfs when the last process in it ends.
Note: mounting needs root; for other users the tests that use a disk are skipped.
"""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

_NEW_NAMESPACE = 0x00020000
_is_private = False


def enter_namespace() -> None:
    """Move this process to its own mount namespace, once; skip the test if that is not allowed."""
    global _is_private
    if _is_private:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACE) != 0:
        pytest.skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    made = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no private mounts: {made.stderr.decode().strip()}")
    _is_private = True


class Disk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path, size_kib: int, inodes: int = 10_000) -> None:
        enter_namespace()
        self.path = path
        self._filler = path / "filler"
        path.mkdir(mode=0o700, parents=True)
        options = f"size={size_kib}k,nr_inodes={inodes},mode=700"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "small", str(path)], capture_output=True, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"no tmpfs: {made.stderr.decode().strip()}")

    @property
    def free_bytes(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_bsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Fill the disk up to `leave_bytes` (rounded to pages)."""
        self.release()
        with open(self._filler, "wb") as file:
            while (size := self.free_bytes - leave_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + size)
                except OSError:  # another process wrote meanwhile, and less is free
                    continue

    def fill_inodes(self, leave_count: int = 0) -> None:
        """Use all inodes except `leave_count`."""
        for number in range(os.statvfs(self.path).f_ffree):
            if os.statvfs(self.path).f_ffree <= leave_count:
                return  # another process creates files too
            try:
                (self.path / f"name-{number}").touch()
            except OSError:  # another process took the last inode
                continue

    def release(self) -> None:
        """Free all space and inodes."""
        self._filler.unlink(missing_ok=True)
        for path in self.path.glob("name-*"):
            path.unlink()

    def close(self) -> None:
        """Unmount the disk, even if a process still uses it."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)
