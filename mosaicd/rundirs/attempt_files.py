"""Reading the files of an attempt safely: the shim writes them, the submitter owns them.

A file is opened relative to a descriptor of its directory, never through a link; only a regular file of the
right owner is read, never more than a limit, and the reader never waits.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mosaicd import log, procfs
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.protocol.records import untrusted
from mosaicd.protocol.records.attempt import Exit, Launch, Started
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.records.leftovers import Leftovers
from mosaicd.safe_files import open_directory, read_regular

logger = log.logger(__name__)

R = TypeVar("R", Launch, Started, Exit)

RECORD_LIMIT_BYTES = 1 << 20
_ATTEMPT = re.compile(rf"{rundir.ATTEMPT_PREFIX}([0-9]{{1,9}})")
#: Errors of a machine without free descriptors, memory or locks; the directory itself may be intact.
_TEMPORARY_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK)


def read_attempt(run_dir: Path, attempt: int, owner_uid: int) -> AttemptFiles:
    """Return the content of an attempt's files; all are absent if the attempt has no directory."""
    log_fields: dict[str, Any] = {"run_id": run_dir.name, "attempt": attempt}
    try:
        directory = open_directory(rundir.attempt_dir(str(run_dir), attempt))
    except FileNotFoundError:
        return AttemptFiles(attempt)
    except OSError as error:  # a link or a file in its place, or without permission
        log.event(Catalogue.ATTEMPT_UNREADABLE, why=error, **log_fields)
        return AttemptFiles(attempt, launch=Launch())
    try:
        files = _read_open_attempt(directory, owner_uid, log_fields, is_final=False)
        if files.launch is None or files.is_held:
            return files
        # The shim may have written its records meanwhile.  Only records that are read after the lock was
        # found free are final.
        return _read_open_attempt(directory, owner_uid, log_fields, is_final=True)
    finally:
        os.close(directory)


def read_leftovers(run_dir: Path, attempt: int, owner_uid: int) -> Leftovers:
    """Return leftovers.json of an attempt, without values if the file is absent; raise OSError if it is
    refused."""
    try:
        directory = open_directory(rundir.attempt_dir(str(run_dir), attempt))
        try:
            content = read_regular(
                rundir.LEFTOVERS, directory, owners=(owner_uid,), limit_bytes=RECORD_LIMIT_BYTES
            )
        finally:
            os.close(directory)
    except FileNotFoundError:
        return Leftovers()
    try:
        return untrusted.read(Leftovers, json.loads(content))
    except (ValueError, RecursionError) as error:
        raise OSError(errno.EINVAL, "it is not JSON") from error


def _read_open_attempt(
    directory: int, owner_uid: int, log_fields: Mapping[str, Any], *, is_final: bool
) -> AttemptFiles:
    """Return the content of the files in an open attempt directory; `log_fields` go into log records."""
    is_held = _is_locked(directory)
    is_over = is_final and not is_held  # otherwise the shim may be writing
    launch = _read_record(Launch, rundir.LAUNCH, directory, owner_uid, log_fields, is_over)
    started = _read_record(Started, rundir.STARTED, directory, owner_uid, log_fields, is_over)
    exit = _read_record(Exit, rundir.EXIT, directory, owner_uid, log_fields, is_over)
    if is_held and (launch is None or not launch.shim_pid):
        launch = _with_holder(launch or Launch(), directory)
    return AttemptFiles(log_fields["attempt"], launch, started, exit, is_held)


def _is_locked(directory: int) -> bool:
    """Return whether a shim holds the lock of an open attempt directory, and therefore is alive."""
    # This shared lock lasts a moment.  A shim that starts meanwhile tries again (shim/attempt_dir.py).
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(directory, fcntl.LOCK_UN)
    return False


def _with_holder(launch: Launch, directory: int) -> Launch:
    """Return the record with the shim that holds the lock, from /proc/locks; unchanged if unknown."""
    held = os.fstat(directory)
    try:
        with open("/proc/locks") as locks:
            rows = [line.split() for line in locks]
        for row in rows:
            if row[1] == "FLOCK" and row[3] == "WRITE" and row[5].endswith(f":{held.st_ino}"):
                pid = int(row[4])
                # A directory of another file system may have the same inode number.
                ticks = procfs.read_start_ticks(pid) if _has_open(pid, held) else None
                if ticks is not None:
                    return launch.changed(shim_pid=pid, shim_started_at=ticks)
    except (OSError, ValueError, IndexError):  # the process has ended, or is another user's
        pass
    return launch


def _has_open(pid: int, directory: os.stat_result) -> bool:
    with os.scandir(f"/proc/{pid}/fd") as entries:
        opened = [entry.stat() for entry in entries if os.path.isdir(entry.path)]
    return any((status.st_dev, status.st_ino) == (directory.st_dev, directory.st_ino) for status in opened)


def held_attempts(directory: Path) -> list[int]:
    """Return the attempts of a run whose lock a shim holds; none if the run has no directory.

    Raises OSError if the machine is short of descriptors or memory.  Note: attempts may be held then.
    """
    try:
        with os.scandir(directory) as entries:
            numbers = [int(match[1]) for entry in entries if (match := _ATTEMPT.fullmatch(entry.name))]
    except OSError as error:
        _raise_if_temporary(error)
        return []  # it does not exist, or is not a directory
    return [number for number in numbers if _is_held(directory / rundir.attempt_name(number))]


def _is_held(attempt: Path) -> bool:
    try:
        descriptor = open_directory(attempt)
        try:
            return _is_locked(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _raise_if_temporary(error)
        return False  # it was removed, or is a file or a link: no shim holds it


def _raise_if_temporary(error: OSError) -> None:
    if error.errno in _TEMPORARY_ERRORS:
        raise error


def _read_record(
    cls: type[R], name: str, directory: int, owner_uid: int, log_fields: Mapping[str, Any], is_over: bool
) -> R | None:
    """Return a record; None if its file is absent, a record without values if the file is unusable.

    `is_over`: the shim has left, so an incomplete record stays incomplete and is logged.
    """
    try:
        content = json.loads(
            read_regular(name, directory, owners=(owner_uid,), limit_bytes=RECORD_LIMIT_BYTES)
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        log.event(Catalogue.RECORD_UNREADABLE, file=name, why=error.strerror, **log_fields)
        return cls()
    except (ValueError, RecursionError):
        if is_over:
            log.event(Catalogue.RECORD_TORN, file=name, **log_fields)
        else:
            logger.debug("%s is not complete yet", name)
        return cls()
    return untrusted.read(cls, content)
