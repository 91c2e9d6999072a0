"""Run directories as the daemon sees them: it writes spec and environment once, and reads the rest with care.

What lies in an attempt directory is the submitter's.  It is opened relative to a directory descriptor,
never through a link, only regular files of the right owner, never blocking, never more than a limit.
"""

import fcntl
import json
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaicd.protocol import rundir

log = logging.getLogger(__name__)

RECORD_LIMIT_BYTES = 1 << 20
_SAFE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """What an attempt directory says.  `is_held`: its lock is taken, so its shim lives."""

    is_held: bool = False
    launch: Mapping[str, Any] | None = None
    started: Mapping[str, Any] | None = None
    exit: Mapping[str, Any] | None = None


class RunDirs:
    """The `runs` directory of a state directory."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, run_id: str) -> Path:
        """Return the run's directory."""
        return self.runs / run_id

    def create(self, run_id: str, spec: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Make the run's directory with spec and environment, durable before it returns.

        FileExistsError when the run has one already; OSError (disk full ...) leaves nothing behind.
        """
        directory = self.path(run_id)
        directory.mkdir(mode=0o700)
        try:
            _write_durably(directory / rundir.SPEC, spec, 0o600)
            _write_durably(directory / rundir.ENVIRONMENT, environment, 0o600)
            _sync_directory(directory)
            _sync_directory(self.runs)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def remove(self, run_id: str) -> None:
        """Remove the directory of a run that was never acknowledged."""
        shutil.rmtree(self.path(run_id), ignore_errors=True)

    def load_spec(self, run_id: str) -> dict[str, Any]:
        """Return spec.json; OSError or ValueError when it is not there or not whole."""
        return _load(self.path(run_id) / rundir.SPEC)

    def load_environment(self, run_id: str) -> dict[str, str]:
        """Return the submitted environment; OSError or ValueError when it is not there or not whole."""
        return _load(self.path(run_id) / rundir.ENVIRONMENT)

    def forget_environment(self, run_id: str) -> None:
        """Remove the environment's values; a run in TERM needs them no more."""
        try:
            (self.path(run_id) / rundir.ENVIRONMENT).unlink(missing_ok=True)
        except NotADirectoryError:
            pass  # the run's directory is gone, and its environment with it

    def examine(self, run_id: str, attempt: int, owner_uid: int) -> Found:
        """Return what the attempt's directory says; everything absent when there is none."""
        try:
            directory = os.open(rundir.attempt_dir(str(self.path(run_id)), attempt), _SAFE | os.O_DIRECTORY)
        except FileNotFoundError:
            return Found()
        except OSError as error:  # a link or a file in its place, or its owner closed it to us
            log.warning("attempt %d of run %s cannot be looked at: %s", attempt, run_id, error)
            return Found(launch={})
        try:
            found = _read_attempt(directory, owner_uid)
            if found.launch is None or found.is_held:
                return found
            # It may have begun, or written its end, while we looked: only what is read after a look at
            # the lock that found it free is final.
            return _read_attempt(directory, owner_uid)
        finally:
            os.close(directory)

    def environments(self) -> list[str]:
        """Return names of directories that hold an environment."""
        with os.scandir(self.runs) as entries:
            names = [entry.name for entry in entries]
        return [name for name in names if os.path.lexists(self.path(name) / rundir.ENVIRONMENT)]

    def refusal(self, run_id: str) -> OSError | None:
        """Return what keeps an attempt's directory from being made in the run's, or None."""
        probe = self.path(run_id) / "probe"
        try:
            probe.mkdir(mode=0o700, exist_ok=True)
            try:
                (probe / rundir.LAUNCH).write_bytes(bytes(4096))
            finally:
                shutil.rmtree(probe, ignore_errors=True)
        except OSError as error:
            return error
        return None

    def unacknowledged(self) -> list[str]:
        """Return names of directories in which no attempt was ever made."""
        found = []
        for entry in os.scandir(self.runs):
            if entry.is_dir(follow_symlinks=False):
                names = os.listdir(entry.path)
                if not any(name.startswith(rundir.ATTEMPT_PREFIX) for name in names):
                    found.append(entry.name)
        return found


def _read_attempt(directory: int, owner_uid: int) -> Found:
    is_held = is_locked(directory)
    names = (rundir.LAUNCH, rundir.STARTED, rundir.EXIT)
    return Found(is_held, *(_read_record(directory, name, owner_uid) for name in names))


def is_locked(directory: int) -> bool:
    """Whether the shim of the attempt whose open directory this is lives."""
    # A shared, momentary lock: a shim that starts just now tries again for a while before it believes us.
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(directory, fcntl.LOCK_UN)
    return False


def held_attempts(directory: Path) -> list[int]:
    """Return the attempts of a run that a shim has in its hand; none where there is no directory."""
    held = []
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(rundir.ATTEMPT_PREFIX)]
        for name in names:
            descriptor = os.open(directory / name, _SAFE | os.O_DIRECTORY)
            try:
                if is_locked(descriptor):
                    held.append(int(name.removeprefix(rundir.ATTEMPT_PREFIX)))
            finally:
                os.close(descriptor)
    except (OSError, ValueError):  # not there, or not what a run directory looks like
        return held
    return held


def _read_record(directory: int, name: str, owner_uid: int) -> Mapping[str, Any] | None:
    """Return the record, empty where it says nothing that can be used; None when it is not there."""
    try:
        descriptor = os.open(name, _SAFE, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be opened: %s", name, error)
        return {}
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != owner_uid or facts.st_size > RECORD_LIMIT_BYTES:
            log.warning("%s is not a regular file of its owner, or too large: ignored", name)
            return {}
        try:
            record = json.loads(file.read(RECORD_LIMIT_BYTES))
        except (ValueError, RecursionError, OSError):
            log.warning("%s is not whole: ignored", name)
            return {}
    return record if isinstance(record, dict) else {}


def _load(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold an object")
    return content


def _write_durably(path: Path, content: Mapping[str, Any], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(content, ensure_ascii=False).encode())
        file.flush()
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
