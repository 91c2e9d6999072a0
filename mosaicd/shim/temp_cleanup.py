"""What a run leaves outside of its directory: its own TMPDIR is removed, new files in /dev/shm are told of.

Both happen when the tree is empty.  A name in /dev/shm says nothing of who made it, and another program of
the same user may have made one meanwhile, so nothing there is removed: a file is told of when it was not
there when the run began, is the user's, and no living process has it open or mapped.
The temporary directory has a short path, because sockets are made in it and a socket's path is 107 bytes.
"""

import os
import stat
import time
from typing import Any, NoReturn

import psutil

from mosaicd.protocol.rundir import temporary_path
from mosaicd.shim.record import Record

TEMPORARY = "TMPDIR"
RECORD = "leftovers.json"
_SHARED_MEMORY = "/dev/shm"
_NAMED = 50
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_left(run_id: str, attempt: int) -> bool:
    """Whether the temporary directory of an attempt is there, and ours."""
    return _is_ours(temporary_path(run_id, attempt))


def remove_all(attempts: list[tuple[str, int]]) -> NoReturn:
    """Remove the temporary directories of these attempts and end this process, a child made for it."""
    try:
        for run_id, attempt in attempts:
            _remove(temporary_path(run_id, attempt), {"files": 0, "bytes": 0, "failed": 0})
    finally:
        os._exit(0)


class Leftovers:
    """What one attempt may leave behind."""

    def __init__(self, run_id: str, attempt: int, held: Record) -> None:
        self._record = held
        self._names = {"run_id": run_id, "attempt": attempt}
        self._temporary = temporary_path(run_id, attempt)
        self._shared: frozenset[tuple[str, int]] | None = None

    def prepare(self, environment: dict[str, str]) -> None:
        """Note what is there, and give the worker a temporary directory unless it was given one."""
        self._shared = frozenset(_shared_files())
        if TEMPORARY in environment:
            return
        for path in (self._temporary, os.path.join(self._record.path, "tmp")):
            try:
                os.mkdir(path, 0o700)
            except OSError:  # taken, by whomever, or no room
                continue
            environment[TEMPORARY] = self._temporary = path
            return

    def collect(self) -> None:
        """Remove the temporary directory and write down what there was, if anything."""
        removed = {"files": 0, "bytes": 0, "failed": 0}
        for path in {self._temporary, os.path.join(self._record.path, "tmp")}:
            if _is_ours(path):
                _remove(path, removed)
        shared = self._new_shared()
        if not shared and not removed["files"] and not removed["failed"]:
            return
        try:
            self._record.write_durably(RECORD, {
                **self._names, "temporary": removed, "shared_memory": shared[:_NAMED], "at": time.time(),
            })  # fmt: skip
        except OSError:
            pass  # a note, and the disk is full

    def _new_shared(self) -> list[dict[str, Any]]:
        if self._shared is None:  # an orphan's: nobody noted what was there before
            return []
        new = {inode: name for name, inode in _shared_files() if (name, inode) not in self._shared}
        if not new:
            return []
        found = []
        in_use = _inodes_in_use()
        for inode, name in new.items():
            path = f"{_SHARED_MEMORY}/{name}"
            try:
                facts = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid() and inode not in in_use:
                found.append({"path": path, "bytes": facts.st_size})
        return found


def _shared_files() -> list[tuple[str, int]]:
    try:
        with os.scandir(_SHARED_MEMORY) as entries:
            return [(entry.name, entry.inode()) for entry in entries]
    except OSError:
        return []


def _inodes_in_use() -> set[int]:
    """Return the inodes below /dev/shm that a living process has open or mapped, as far as we may see."""
    found: set[int] = set()
    for pid in psutil.pids():
        try:
            with open(f"/proc/{pid}/maps", "rb", buffering=0) as maps:
                rows = maps.readall().splitlines()
            links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        found.update(int(row.split()[4]) for row in rows if b" /dev/shm/" in row)
        for link in links:
            try:
                if os.readlink(link).startswith(_SHARED_MEMORY + "/"):
                    found.add(os.stat(link).st_ino)
            except OSError:
                continue
    return found


def _is_ours(path: str) -> bool:
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


def _remove(path: str, removed: dict[str, int]) -> None:
    """Remove a directory and all in it, through descriptors: no link that was left there leads elsewhere."""
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent, _DIRECTORY)
    except OSError:
        removed["failed"] += 1
        return
    try:
        _remove_below(fd, name, removed)
    finally:
        os.close(fd)


def _remove_below(parent: int, name: str, removed: dict[str, int]) -> None:
    """Empty and remove the directory `name` in `parent`; deep trees one descriptor a level."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        try:
            os.chmod(name, 0o700, dir_fd=parent)
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            removed["failed"] += 1
            return
    except OSError:
        removed["failed"] += 1
        return
    try:
        os.fchmod(fd, 0o700)
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_below(fd, entry.name, removed)
                    continue
                removed["bytes"] += entry.stat(follow_symlinks=False).st_size
                removed["files"] += 1
                os.unlink(entry.name, dir_fd=fd)
        os.rmdir(name, dir_fd=parent)
    except (OSError, RecursionError):
        removed["failed"] += 1
    finally:
        os.close(fd)
