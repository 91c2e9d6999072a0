"""leftovers.json: what an attempt left behind outside of its run directory; the contract is mosaic-rundir(5).

The command lines of processes may hold secrets, so the file has mode 0600, and only the run's owner and
admins get its content.
"""

from mosaicd.protocol.records.record import Record


class LeftProcess(Record):
    """A process that the program left running; `command` is the beginning of its command line."""

    pid: int | None = None
    command: str | None = None


class LeftFile(Record):
    """A file in /dev/shm that appeared during the run; it is not removed."""

    path: str | None = None
    bytes: int | None = None


class RemovedFiles(Record):
    """Files that were removed at the end of the attempt; `failed` could not be removed."""

    files: int = 0
    bytes: int = 0
    failed: int = 0


class Leftovers(Record):
    """The leftovers of one attempt.

    `processes` and `shared_memory` have only the first processes and the largest files.
    """

    run_id: str | None = None
    attempt: int | None = None
    processes: tuple[LeftProcess, ...] = ()
    temporary: RemovedFiles = RemovedFiles()
    shared_memory: tuple[LeftFile, ...] = ()
    shared_memory_files: int = 0
    shared_memory_bytes: int = 0
    removed_shared_memory: RemovedFiles = RemovedFiles()
    at: float | None = None
