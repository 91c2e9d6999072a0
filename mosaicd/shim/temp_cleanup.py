"""The clean-up outside of the run directory: the TMPDIR of an attempt, and its files in /dev/shm.

Both happen when the process tree of the worker is empty.  An entry of /dev/shm whose name has the run's id is
removed.  Other files there are listed and not removed: another program of the same user may have made them
during the run.  A file is listed if it did not exist at the start of the run, belongs to the user, and no
process has it open or mapped.
The path of the temporary directory is short, because workers make sockets in it: the path of a socket has at
most 107 bytes.
"""

import json
import os
import stat
import time
from collections.abc import Sequence
from typing import NoReturn

import psutil

from mosaicd.protocol.records.leftovers import LeftFile, Leftovers, LeftProcess, RemovedFiles
from mosaicd.protocol.rundir import LEFTOVERS, temporary_paths
from mosaicd.safe_files import Removed, read_regular, remove_tree
from mosaicd.shim.attempt_dir import AttemptDir

TEMPORARY = "TMPDIR"
_SHARED_MEMORY = "/dev/shm"
_MOST_LISTED = 50
_RECORD_LIMIT_BYTES = 1 << 20


def has_temp_dir(run_id: str, attempt: int) -> bool:
    """Return whether the temporary directory of an attempt exists and belongs to this user."""
    return any(map(_is_own_directory, temporary_paths(run_id, attempt)))


def remove_and_exit(attempts: list[tuple[str, int]]) -> NoReturn:
    """Remove the temporary directories of these attempts, and the entries of /dev/shm with their run ids.

    Ends this process, a child made for it.
    """
    began_at = time.time()  # no process of these runs is alive, and no later attempt has started
    try:
        for run_id, attempt in attempts:
            for path in filter(_is_own_directory, temporary_paths(run_id, attempt)):
                remove_tree(path)
            remove_shared_memory(run_id, began_at)
    finally:
        os._exit(0)


def remove_shared_memory(run_id: str, emptied_at: float) -> Removed:
    """Remove the entries of /dev/shm that belong to this user and have the run's id in their name.

    Entries that changed after `emptied_at`, when the process tree was empty, are of a later attempt and stay.
    """
    removed = Removed()
    for name, _ in _shared_entries():
        path = f"{_SHARED_MEMORY}/{name}"
        if run_id in name and _is_own(path, emptied_at):
            remove_tree(path, removed)
    return removed


class TempCleanup:
    """The temporary directory and the shared memory files of one attempt."""

    def __init__(self, run_id: str, attempt: int, attempt_dir: AttemptDir) -> None:
        self._attempt_dir = attempt_dir
        self._leftovers = Leftovers(run_id=run_id, attempt=attempt)
        self._run_id = run_id
        self._temporary = temporary_paths(run_id, attempt)
        self._shared: frozenset[tuple[str, int]] | None = None
        self._emptied_at = 0.0

    @property
    def _last_resort(self) -> str:
        """The temporary directory if no short one can be made; it may be too long for sockets."""
        return os.path.join(self._attempt_dir.path, "tmp")

    def prepare(self, environment: dict[str, str]) -> None:
        """Note the files in /dev/shm; make a temporary directory unless the order names one."""
        self._shared = frozenset(_shared_entries())
        if TEMPORARY in environment:
            return
        for path in (*self._temporary, self._last_resort):
            try:
                os.mkdir(path, 0o700)
            except OSError:  # the name is taken, or the disk is full
                continue
            environment[TEMPORARY] = path
            self._temporary = (path,)
            return

    def note_processes(self, processes: Sequence[LeftProcess]) -> None:
        """Write the processes that the program left running to leftovers.json."""
        if processes:
            self._leftovers = self._leftovers.changed(processes=tuple(processes))
            self._try_write()

    def keep_processes(self) -> None:
        """Keep the processes in leftovers.json, which a dead shim wrote."""
        try:
            content = read_regular(LEFTOVERS, self._attempt_dir.dir_fd, limit_bytes=_RECORD_LIMIT_BYTES)
            self._leftovers = self._leftovers.changed(
                processes=Leftovers.from_json(json.loads(content)).processes
            )
        except (OSError, ValueError, TypeError, AttributeError):  # absent, or not written by a shim
            pass

    def note_empty(self) -> None:
        """Note that the process tree is empty now."""
        self._emptied_at = time.time()

    def clean_up(self) -> None:
        """Remove the temporary directory and shared memory; if anything was left, write leftovers.json."""
        removed = Removed()
        for path in {*self._temporary, self._last_resort}:
            if _is_own_directory(path):
                remove_tree(path, removed)
        removed_shared = remove_shared_memory(self._run_id, self._emptied_at)
        shared = sorted(self._new_shared(), key=lambda file: file.bytes or 0, reverse=True)
        has_removed = any(one.files or one.failed for one in (removed, removed_shared))
        if not shared and not has_removed and not self._leftovers.processes:
            return
        self._leftovers = self._leftovers.changed(
            temporary=_counts(removed),
            shared_memory=tuple(shared[:_MOST_LISTED]),
            shared_memory_files=len(shared),
            shared_memory_bytes=sum(file.bytes or 0 for file in shared),
            removed_shared_memory=_counts(removed_shared),
        )
        self._try_write()

    def _try_write(self) -> None:
        content = self._leftovers.changed(at=time.time()).to_json()
        try:
            self._attempt_dir.write_durably(LEFTOVERS, content)
        except OSError:
            pass  # the disk is full, or the attempt directory is removed: this file is only information

    def _new_shared(self) -> list[LeftFile]:
        if self._shared is None:  # a teardown shim: the files at the start of the run are not known
            return []
        new = {inode: name for name, inode in _shared_entries() if (name, inode) not in self._shared}
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
                listed.append(LeftFile(path=path, bytes=status.st_size))
        return listed


def _counts(removed: Removed) -> RemovedFiles:
    return RemovedFiles(files=removed.files, bytes=removed.bytes, failed=removed.failed)


def _shared_entries() -> list[tuple[str, int]]:
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


def _is_own(path: str, changed_until: float) -> bool:
    """Return whether an entry belongs to this user and has not changed after `changed_until`."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and status.st_ctime <= changed_until


def _is_own_directory(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
