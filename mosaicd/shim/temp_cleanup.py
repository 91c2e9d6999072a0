"""The clean-up outside of the run directory: remove the TMPDIR of an attempt, list its files in /dev/shm.

Both happen when the process tree of the worker is empty.  Files in /dev/shm are listed and not removed:
another program of the same user may have made them during the run.  A file is listed if it did not exist
at the start of the run, belongs to the user, and no process has it open or mapped.
The path of the temporary directory is short, because workers make sockets in it: the path of a socket has at
most 107 bytes.
"""

import os
import stat
import time
from typing import NoReturn

import psutil

from mosaicd.protocol import Json
from mosaicd.protocol.rundir import temporary_path
from mosaicd.safe_files import Removed, remove_tree
from mosaicd.shim.attempt_dir import AttemptDir

TEMPORARY = "TMPDIR"
RECORD = "leftovers.json"
_SHARED_MEMORY = "/dev/shm"
_MOST_LISTED = 50


def has_temp_dir(run_id: str, attempt: int) -> bool:
    """Return whether the temporary directory of an attempt exists and belongs to this user."""
    return _is_own_directory(temporary_path(run_id, attempt))


def remove_and_exit(attempts: list[tuple[str, int]]) -> NoReturn:
    """Remove the temporary directories of these attempts and end this process, a child made for it."""
    try:
        for run_id, attempt in attempts:
            remove_tree(temporary_path(run_id, attempt))
    finally:
        os._exit(0)


class TempCleanup:
    """The temporary directory and the shared memory files of one attempt."""

    def __init__(self, run_id: str, attempt: int, attempt_dir: AttemptDir) -> None:
        self._attempt_dir = attempt_dir
        self._ids = {"run_id": run_id, "attempt": attempt}
        self._temporary = temporary_path(run_id, attempt)
        self._shared: frozenset[tuple[str, int]] | None = None

    def prepare(self, environment: dict[str, str]) -> None:
        """Note the files in /dev/shm; make a temporary directory unless the order names one."""
        self._shared = frozenset(_shared_files())
        if TEMPORARY in environment:
            return
        for path in (self._temporary, os.path.join(self._attempt_dir.path, "tmp")):
            try:
                os.mkdir(path, 0o700)
            except OSError:  # the name is taken, or the disk is full
                continue
            environment[TEMPORARY] = self._temporary = path
            return

    def clean_up(self) -> None:
        """Remove the temporary directory; if the run left anything, write leftovers.json."""
        removed = Removed()
        for path in {self._temporary, os.path.join(self._attempt_dir.path, "tmp")}:
            if _is_own_directory(path):
                remove_tree(path, removed)
        shared = self._new_shared()
        if not shared and not removed.files and not removed.failed:
            return
        counts = {"files": removed.files, "bytes": removed.bytes, "failed": removed.failed}
        try:
            self._attempt_dir.write_durably(RECORD, {
                **self._ids, "temporary": counts, "shared_memory": shared[:_MOST_LISTED], "at": time.time(),
            })  # fmt: skip
        except OSError:
            pass  # the disk is full, or the attempt directory is removed: this file is only information

    def _new_shared(self) -> list[Json]:
        if self._shared is None:  # a teardown shim: the files at the start of the run are not known
            return []
        new = {inode: name for name, inode in _shared_files() if (name, inode) not in self._shared}
        if not new:
            return []
        listed = []
        in_use = _inodes_in_use()
        for inode, name in new.items():
            path = f"{_SHARED_MEMORY}/{name}"
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and inode not in in_use:
                listed.append({"path": path, "bytes": status.st_size})
        return listed


def _shared_files() -> list[tuple[str, int]]:
    try:
        with os.scandir(_SHARED_MEMORY) as entries:
            return [(entry.name, entry.inode()) for entry in entries]
    except OSError:
        return []


def _inodes_in_use() -> set[int]:
    """Return the inodes below /dev/shm that a process has open or mapped, of the processes that may be
    read."""
    listed: set[int] = set()
    for pid in psutil.pids():
        try:
            with open(f"/proc/{pid}/maps", "rb", buffering=0) as maps:
                rows = maps.readall().splitlines()
            links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        listed.update(int(row.split()[4]) for row in rows if b" /dev/shm/" in row)
        for link in links:
            try:
                if os.readlink(link).startswith(_SHARED_MEMORY + "/"):
                    listed.add(os.stat(link).st_ino)
            except OSError:
                continue
    return listed


def _is_own_directory(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
