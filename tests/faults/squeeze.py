"""What makes writes fail in a drill: one process's limit of file size, or a disk that has become small.

Note: a limit is inherited.  What the launcher forks under one has it too, so limits are
lifted from every shim there is, and programs lift their own when they begin.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.smalldisk import Disk

#: How long one write may become under a limit: none, within a record, within a page, some pages.
LIMITS_BYTES = (0, 1, 100, 4096, 20_000)
#: How much is left on a disk that became small.
LEFT_BYTES = (0, 0, 4096, 16_384, 65_536, 300_000)
ROOM_KIB = 256 << 10
_REMOUNT = 32


def limit(pid: int, size_bytes: int) -> bool:
    """Let a process write files of at most this size; False where it is gone."""
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))
    except (ProcessLookupError, PermissionError):
        return False
    return True


def lift(pids: Iterable[int]) -> None:
    """Take the limit from every process that has one."""
    for pid in pids:
        try:
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            if soft != hard:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        except (ProcessLookupError, PermissionError):
            continue


class ElasticDisk(Disk):
    """A tmpfs that becomes as small as what lies on it, and large again, at once."""

    is_small = False

    def shrink(self, leave_bytes: int) -> None:
        """Leave so much room, in whole pages."""
        self.is_small = True
        for _ in range(20):  # another process writes too: a limit below the used size is refused
            facts = os.statvfs(self.path)
            used = (facts.f_blocks - facts.f_bfree) * facts.f_bsize
            if self._resize(max(used + leave_bytes, facts.f_bsize) >> 10):
                return

    def grow(self) -> None:
        """Give all the room back."""
        assert self._resize(ROOM_KIB), "a larger size is never refused"
        self.is_small = False

    def _resize(self, size_kib: int) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"size={size_kib}k".encode()
        return bool(libc.mount(b"small", os.fsencode(self.path), b"tmpfs", _REMOUNT, options) == 0)


def elastic_disk(path: Path) -> ElasticDisk | None:
    """Mount one at `path`; None where that is not allowed, and only processes can be limited."""
    try:
        return ElasticDisk(path, ROOM_KIB, inodes=1_000_000)
    except pytest.skip.Exception:
        return None
