"""Two ways to make writes fail in a drill: a file size limit for one process, or a disk that becomes small.

Note: a limit is inherited.  Shims that the launcher forks under a limit have the limit too, so the drill
lifts the limit of every shim, and the programs lift their own limit when they start.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.smalldisk import Disk

#: File size limits: nothing, within a record, within a page, some pages.
LIMITS_BYTES = (0, 1, 100, 4096, 20_000)
#: Free space on a disk that became small.
LEFT_BYTES = (0, 0, 4096, 16_384, 65_536, 300_000)
ROOM_KIB = 256 << 10
_REMOUNT = 32


def try_limit(pid: int, size_bytes: int) -> bool:
    """Limit the size of files that a process writes; return whether the process still exists."""
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))
    except (ProcessLookupError, PermissionError):
        return False
    return True


def lift(pids: Iterable[int]) -> None:
    """Remove the limit of every process that has one."""
    for pid in pids:
        try:
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            if soft != hard:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        except (ProcessLookupError, PermissionError):
            continue


class ElasticDisk(Disk):
    """A tmpfs whose size can shrink to its content and grow again while it is mounted."""

    is_small = False

    def shrink(self, leave_bytes: int) -> None:
        """Shrink the disk to its content plus `leave_bytes` (rounded to pages)."""
        self.is_small = True
        for _ in range(20):  # another process writes too: a limit below the used size is refused
            facts = os.statvfs(self.path)
            used = (facts.f_blocks - facts.f_bfree) * facts.f_bsize
            if self._try_resize(max(used + leave_bytes, facts.f_bsize) >> 10):
                return

    def grow(self) -> None:
        """Give the disk its full size again."""
        assert self._try_resize(ROOM_KIB), "a larger size is refused"
        self.is_small = False

    def _try_resize(self, size_kib: int) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"size={size_kib}k".encode()
        return bool(libc.mount(b"small", os.fsencode(self.path), b"tmpfs", _REMOUNT, options) == 0)


def try_mount(path: Path) -> ElasticDisk | None:
    """Mount an elastic disk at `path`; return None if mounting is not allowed."""
    try:
        return ElasticDisk(path, ROOM_KIB, inodes=1_000_000)
    except pytest.skip.Exception:
        return None
