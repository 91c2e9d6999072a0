"""Run directories as the daemon sees them: it writes spec and environment once, and reads the rest with care.

What lies in an attempt directory is the submitter's.  It is opened relative to a directory descriptor,
never through a link, only regular files of the right owner, never blocking, never more than a limit.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mosaicd import log, procfs
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.removal import remove_run_dir
from mosaicd.safe_files import NotTrusted, create_synced, open_directory, read_regular, sync_to_disk

logger = log.logger(__name__)

RECORD_LIMIT_BYTES = 1 << 20
#: Of what the daemon wrote itself: many times what fits into a request.
OWN_LIMIT_BYTES = 1 << 24
_ATTEMPT = re.compile(rf"{rundir.ATTEMPT_PREFIX}([0-9]{{1,9}})")
#: What keeps a directory from being looked at now, and says nothing of it.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK)


@dataclass(frozen=True, slots=True)
class Outline:
    """What the names in a run's directory say; `attempts` by number."""

    name: str
    entries: frozenset[str]

    @property
    def attempts(self) -> list[int]:
        """The numbers of its attempts, in order."""
        tails = [entry.removeprefix(rundir.ATTEMPT_PREFIX) for entry in self.entries if _is_attempt(entry)]
        numbers = [int(tail) for tail in tails if tail.isascii() and tail.isdigit()]
        return sorted(number for number in numbers if rundir.attempt_name(number) in self.entries)

    @property
    def is_begun(self) -> bool:
        """Whether an attempt of it was ever made, so that its row was on the disk by then."""
        return any(map(_is_attempt, self.entries))

    @property
    def has_environment(self) -> bool:
        """Whether the run is not known to be over."""
        return rundir.ENVIRONMENT in self.entries

    @property
    def is_unacknowledged(self) -> bool:
        """Whether nobody was ever told of the run: its row was never committed, as far as this can tell."""
        return not self.is_begun and (rundir.UNACKNOWLEDGED in self.entries or not self.entries)

    @property
    def is_pruned(self) -> bool:
        """Whether retention was about to take the run, or has taken it."""
        return rundir.PRUNED in self.entries

    @property
    def is_remnant(self) -> bool:
        """Whether a removal has begun here: what is left tells of no run."""
        return self.is_pruned and rundir.SPEC not in self.entries


def _is_attempt(entry: str) -> bool:
    return entry.startswith(rundir.ATTEMPT_PREFIX)


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

        It says of itself that nobody was told of it, until `acknowledge`.
        FileExistsError when the run has one already; OSError (disk full ...) leaves nothing behind.
        """
        directory = self.path(run_id)
        directory.mkdir(mode=0o700)
        try:
            _touch(directory / rundir.UNACKNOWLEDGED)
            create_synced(directory / rundir.SPEC, _encode(spec))
            create_synced(directory / rundir.ENVIRONMENT, _encode(environment))
            sync_to_disk(directory)
            sync_to_disk(self.runs)
        except BaseException:
            self.remove(run_id)
            raise

    def acknowledge(self, run_id: str) -> None:
        """Take the mark away that nobody was told of the run: it is committed, and may be told."""
        try:
            (self.path(run_id) / rundir.UNACKNOWLEDGED).unlink(missing_ok=True)
        except OSError as error:  # it says too little then, and only where the registry is lost
            log.event(Catalogue.MARK_LEFT, run_id=run_id, why=error)

    def give_up(self, run_id: str) -> None:
        """Mark the directory of a run that is about to be pruned; OSError."""
        _touch(self.path(run_id) / rundir.PRUNED)

    def keep(self, run_id: str) -> None:
        """Take the mark of `give_up` away again; one that stays does no harm while there is a row."""
        with contextlib.suppress(OSError):
            (self.path(run_id) / rundir.PRUNED).unlink(missing_ok=True)

    def remove(self, run_id: str) -> None:
        """Remove the directory of a run that was never acknowledged, or what is left of one."""
        remove_run_dir(self.path(run_id))

    def names(self) -> list[str]:
        """Return the names of all directories."""
        with os.scandir(self.runs) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def outline(self, name: str) -> Outline:
        """Return what lies in the directory, by name only; OSError."""
        return Outline(name, frozenset(os.listdir(self.path(name))))

    def outlines(self) -> Iterator[Outline]:
        """Yield the outline of every directory that can be read."""
        for name in self.names():
            with contextlib.suppress(OSError):
                yield self.outline(name)

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

    def examine(self, run_id: str, attempt: int, owner_uid: int) -> AttemptFiles:
        """Return what the attempt's directory says; everything absent when there is none."""
        named: dict[str, Any] = {"run_id": run_id, "attempt": attempt}
        try:
            directory = open_directory(rundir.attempt_dir(str(self.path(run_id)), attempt))
        except FileNotFoundError:
            return AttemptFiles(attempt)
        except OSError as error:  # a link or a file in its place, or its owner closed it to us
            log.event(Catalogue.ATTEMPT_UNREADABLE, why=error, **named)
            return AttemptFiles(attempt, launch={})
        try:
            found = _read_attempt(directory, owner_uid, named, is_final=False)
            if found.launch is None or found.is_held:
                return found
            # It may have begun, or written its end, while we looked: only what is read after a look at
            # the lock that found it free is final.
            return _read_attempt(directory, owner_uid, named, is_final=True)
        finally:
            os.close(directory)

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


def _read_attempt(
    directory: int, owner_uid: int, named: Mapping[str, Any], *, is_final: bool
) -> AttemptFiles:
    """Return what the files of an open attempt directory say; `named` are its fields in the log."""
    is_held = is_locked(directory)
    is_over = is_final and not is_held  # else somebody may be writing just now
    names = (rundir.LAUNCH, rundir.STARTED, rundir.EXIT)
    launch, started, exit = (_read_record(directory, name, owner_uid, named, is_over) for name in names)
    found = AttemptFiles(named["attempt"], launch, started, exit, is_held)
    if is_held and not (found.launch or {}).get("shim_pid"):
        return replace(found, launch={**(found.launch or {}), **_holder(directory)})
    return found


def is_locked(directory: int) -> bool:
    """Whether the shim of the attempt whose open directory this is lives."""
    # A shared, momentary lock: a shim that starts just now tries again for a while before it believes us.
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(directory, fcntl.LOCK_UN)
    return False


def _holder(directory: int) -> dict[str, int]:
    """Return what launch.json should say of the shim, by the kernel's word on who took the lock; {} else."""
    facts = os.fstat(directory)
    try:
        with open("/proc/locks") as locks:
            rows = [line.split() for line in locks]
        for row in rows:
            if row[1] == "FLOCK" and row[3] == "WRITE" and row[5].endswith(f":{facts.st_ino}"):
                process = f"/proc/{int(row[4])}"  # the same number may be of another disk's
                with os.scandir(f"{process}/fd") as entries:
                    opened = [entry.stat() for entry in entries if os.path.isdir(entry.path)]
                if any((one.st_dev, one.st_ino) == (facts.st_dev, facts.st_ino) for one in opened):
                    ticks = procfs.read_start_ticks(int(row[4]))
                    return {"shim_pid": int(row[4]), "shim_started_at": ticks} if ticks is not None else {}
    except (OSError, ValueError, IndexError):  # it has ended meanwhile, or is not ours to look at
        pass
    return {}


def held_attempts(directory: Path) -> list[int]:
    """Return the attempts of a run that a shim has in its hand; none where there is no directory.

    OSError where that cannot be known just now (no descriptor to be had): not known is not free.
    """
    try:
        with os.scandir(directory) as entries:
            numbers = [int(found[1]) for entry in entries if (found := _ATTEMPT.fullmatch(entry.name))]
    except OSError as error:
        _raise_passing(error)
        return []  # not there, or not what a run directory looks like
    return [number for number in numbers if _is_held(directory / rundir.attempt_name(number))]


def _is_held(attempt: Path) -> bool:
    try:
        descriptor = open_directory(attempt)
        try:
            return is_locked(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _raise_passing(error)
        return False  # gone meanwhile, or a file or a link in its place: no shim has that


def _raise_passing(error: OSError) -> None:
    if error.errno in _PASSING:
        raise error


def _read_record(
    directory: int, name: str, owner_uid: int, named: Mapping[str, Any], is_over: bool
) -> Mapping[str, Any] | None:
    """Return the record, empty where it says nothing that can be used; None when it is not there.

    `is_over`: the shim has left, so a record that is not complete will never be; the log says so.
    """
    try:
        record = json.loads(
            read_regular(name, directory, owners=(owner_uid,), limit_bytes=RECORD_LIMIT_BYTES)
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        log.event(Catalogue.RECORD_UNREADABLE, file=name, why=error.strerror, **named)
        return {}
    except (ValueError, RecursionError):
        if is_over:
            log.event(Catalogue.RECORD_TORN, file=name, **named)
        else:
            logger.debug("%s is not complete yet", name)
        return {}
    return record if isinstance(record, dict) else {}


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path, limit_bytes=OWN_LIMIT_BYTES))
    except NotTrusted as error:
        raise ValueError(f"{path} cannot be used: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold an object")
    return content


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
