"""Run directories: the daemon's own files in them, and the marks of a run that is new or is pruned."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol import Json, rundir
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.attempt_files import read_attempt
from mosaicd.rundirs.removal import remove_run_dir
from mosaicd.safe_files import NotTrusted, create_synced, read_regular, remove_tree, sync_to_disk

#: The largest spec or environment that is read: many times the size of a request.
OWN_LIMIT_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Outline:
    """The names of the entries in a run's directory, and what they mean."""

    name: str
    entries: frozenset[str]

    @property
    def attempts(self) -> list[int]:
        """The numbers of the attempts, in order."""
        tails = [entry.removeprefix(rundir.ATTEMPT_PREFIX) for entry in self.entries if _is_attempt(entry)]
        numbers = [int(tail) for tail in tails if tail.isascii() and tail.isdigit()]
        return sorted(number for number in numbers if rundir.attempt_name(number) in self.entries)

    @property
    def is_begun(self) -> bool:
        """Whether an attempt was begun; the run was committed before that."""
        return any(map(_is_attempt, self.entries))

    @property
    def has_environment(self) -> bool:
        """Whether the run is not known to be over."""
        return rundir.ENVIRONMENT in self.entries

    @property
    def is_unacknowledged(self) -> bool:
        """Whether the submit of the run was probably never committed and answered."""
        return not self.is_begun and (rundir.UNACKNOWLEDGED in self.entries or not self.entries)

    @property
    def is_pruned(self) -> bool:
        """Whether retention was about to prune the run, or has pruned it."""
        return rundir.PRUNED in self.entries

    @property
    def is_remnant(self) -> bool:
        """Whether the removal of the directory has begun: the rest describes no run."""
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

        The mark UNACKNOWLEDGED lies in it until `acknowledge`.
        FileExistsError if the run has a directory already; after an OSError (disk full ...) it has none.
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
        """Remove the mark UNACKNOWLEDGED: the run is committed."""
        try:
            (self.path(run_id) / rundir.UNACKNOWLEDGED).unlink(missing_ok=True)
        except OSError as error:  # the mark matters only if the registry is lost
            log.event(Catalogue.MARK_LEFT, run_id=run_id, why=error)

    def give_up(self, run_id: str) -> None:
        """Mark the directory of a run that is about to be pruned; OSError."""
        _touch(self.path(run_id) / rundir.PRUNED)

    def keep(self, run_id: str) -> None:
        """Remove the mark of `give_up`; while the run has a row, a mark that stays changes nothing."""
        with contextlib.suppress(OSError):
            (self.path(run_id) / rundir.PRUNED).unlink(missing_ok=True)

    def remove(self, run_id: str) -> None:
        """Remove the directory of a run that was never acknowledged, or the rest of a pruned one."""
        remove_run_dir(self.path(run_id))

    def names(self) -> list[str]:
        """Return the names of all directories."""
        with os.scandir(self.runs) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def outline(self, name: str) -> Outline:
        """Return the names of the entries in a directory; OSError."""
        return Outline(name, frozenset(os.listdir(self.path(name))))

    def outlines(self) -> Iterator[Outline]:
        """Yield the outline of every directory that can be read."""
        for name in self.names():
            with contextlib.suppress(OSError):
                yield self.outline(name)

    def load_spec(self, run_id: str) -> Json:
        """Return spec.json; OSError or ValueError when it is not there or not whole."""
        return _load(self.path(run_id) / rundir.SPEC)

    def spec_text(self, run_id: str) -> str:
        """Return spec.json as it is, whole or not; OSError when it cannot be read."""
        text = read_regular(self.path(run_id) / rundir.SPEC, limit_bytes=OWN_LIMIT_BYTES)
        return text.decode(errors="replace")

    def load_environment(self, run_id: str) -> dict[str, str]:
        """Return the submitted environment; OSError or ValueError when it is not there or not whole."""
        return _load(self.path(run_id) / rundir.ENVIRONMENT)

    def forget_environment(self, run_id: str) -> None:
        """Remove the submitted environment; a run in TERM does not need it."""
        try:
            (self.path(run_id) / rundir.ENVIRONMENT).unlink(missing_ok=True)
        except NotADirectoryError:
            pass  # a file lies in place of the run's directory

    def examine(self, run_id: str, attempt: int, owner_uid: int) -> AttemptFiles:
        """Return what the files of an attempt say; every file is absent if it has no directory."""
        return read_attempt(self.path(run_id), attempt, owner_uid)

    def refusal(self, run_id: str) -> OSError | None:
        """Return the error with which an attempt's directory cannot be made, or None if it can be."""
        probe = self.path(run_id) / "probe"
        try:
            probe.mkdir(mode=0o700, exist_ok=True)
            try:
                (probe / rundir.LAUNCH).write_bytes(bytes(4096))
            finally:
                remove_tree(probe)
        except OSError as error:
            return error
        return None


def _load(path: Path) -> Json:
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
