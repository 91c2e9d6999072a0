"""Run directories: the files that the daemon writes, and the marks of unacknowledged and pruned runs."""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mosaicd import log
from mosaicd.core.environment_parts import Parts
from mosaicd.core.spec import InvalidSpec, Spec, environment_of
from mosaicd.log import Catalogue
from mosaicd.protocol import Json, rundir
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.attempt_files import read_attempt
from mosaicd.rundirs.environments import SharedEnvironments
from mosaicd.rundirs.removal import remove_pruned, remove_run_dir
from mosaicd.safe_files import NotTrusted, create_synced, read_regular, remove_tree, sync_to_disk

#: The largest spec or environment that is read: many times the largest request.
OWN_LIMIT_BYTES = 1 << 24

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outline:
    """The names of the entries in a run's directory, and what they show about the run."""

    name: str
    entries: frozenset[str]

    @property
    def attempts(self) -> list[int]:
        """Return the numbers of the attempts, in order."""
        tails = [entry.removeprefix(rundir.ATTEMPT_PREFIX) for entry in self.entries if _is_attempt(entry)]
        numbers = [int(tail) for tail in tails if tail.isascii() and tail.isdigit()]
        return sorted(number for number in numbers if rundir.attempt_name(number) in self.entries)

    @property
    def has_attempt(self) -> bool:
        """Return whether an attempt was begun; the run was committed before that."""
        return any(map(_is_attempt, self.entries))

    @property
    def has_environment(self) -> bool:
        """Return whether the submitted environment exists: it is removed when the run has ended."""
        return rundir.ENVIRONMENT in self.entries

    @property
    def is_unacknowledged(self) -> bool:
        """Return whether the submit of the run was probably never committed and answered."""
        return not self.has_attempt and (rundir.UNACKNOWLEDGED in self.entries or not self.entries)

    @property
    def is_pruned(self) -> bool:
        """Return whether retention was about to prune the run, or has pruned it."""
        return rundir.PRUNED in self.entries

    @property
    def is_remnant(self) -> bool:
        """Return whether the removal of the directory has begun; then it no longer describes a run."""
        return self.is_pruned and rundir.SPEC not in self.entries


def _is_attempt(entry: str) -> bool:
    return entry.startswith(rundir.ATTEMPT_PREFIX)


class RunDirs:
    """The `runs` directory of a state directory, and `environments` beside it."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.environments = SharedEnvironments(runs.with_name("environments"), OWN_LIMIT_BYTES)
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, run_id: str) -> Path:
        """Return the run's directory."""
        return self.runs / run_id

    def create(
        self, run_id: str, spec: Mapping[str, Any], environment: Parts,
        place_stdin: Callable[[Path], None] | None = None,
    ) -> None:  # fmt: skip
        """Make the run's directory with spec and environment; they are on the disk when this returns.

        `place_stdin` is called with the path of the run's input and puts a file there whose content is on the
        disk.

        The directory has the mark UNACKNOWLEDGED until `acknowledge`.  Raises FileExistsError if the run
        already has a directory; after another OSError, for example on a full disk, the run has none.
        """
        directory = self.path(run_id)
        directory.mkdir(mode=0o700)
        try:
            _touch(directory / rundir.UNACKNOWLEDGED)
            create_synced(directory / rundir.SPEC, _encode(spec))
            if environment.secret:
                create_synced(directory / rundir.ENVIRONMENT, _encode(environment.secret))
            else:  # an empty file has no content to wait for
                _touch(directory / rundir.ENVIRONMENT)
            if environment.given:
                create_synced(directory / rundir.GIVEN_ENVIRONMENT, _encode(environment.given))
            self.environments.create(directory / rundir.CALLER_ENVIRONMENT, environment.caller)
            if place_stdin is not None:
                place_stdin(directory / rundir.STDIN)
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

    def mark_pruned(self, run_id: str) -> None:
        """Mark the directory of a run that is about to be pruned; raise OSError if that fails."""
        _touch(self.path(run_id) / rundir.PRUNED)

    def unmark_pruned(self, run_id: str) -> None:
        """Remove the mark of `mark_pruned`; while the run has a row, a remaining mark has no effect."""
        with contextlib.suppress(OSError):
            (self.path(run_id) / rundir.PRUNED).unlink(missing_ok=True)

    def remove(self, run_id: str) -> None:
        """Remove the directory of a run that was never acknowledged, or the rest of a pruned one."""
        with self._last_use_of_environment(run_id):
            remove_run_dir(self.path(run_id))

    def remove_pruned(self, run_id: str) -> str | None:
        """Remove the directory of a pruned run; return why a part of it remains, else None."""
        with self._last_use_of_environment(run_id):
            return remove_pruned(self.path(run_id))

    @contextlib.contextmanager
    def _last_use_of_environment(self, run_id: str) -> Iterator[None]:
        """Remove the shared environment after the directory of the last run that has it."""
        shared = self.environments.shared_file(self.path(run_id) / rundir.CALLER_ENVIRONMENT)
        yield
        self.environments.drop(shared)

    def names(self) -> list[str]:
        """Return the names of all directories."""
        with os.scandir(self.runs) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def outline(self, name: str) -> Outline:
        """Return the names of the entries in a run's directory; raise OSError if it cannot be read."""
        return Outline(name, frozenset(os.listdir(self.path(name))))

    def outlines(self) -> Iterator[Outline]:
        """Yield the outline of every directory that can be read."""
        for name in self.names():
            with contextlib.suppress(OSError):
                yield self.outline(name)

    def load_spec(self, run_id: str) -> tuple[Spec, list[str]]:
        """Return the spec in spec.json, and the names of the variables that it was submitted with.

        Raises OSError if the file cannot be opened or read, InvalidSpec if its content is not valid; both
        name the file.
        """
        return _load(self.path(run_id) / rundir.SPEC, lambda data: (Spec.from_dict(data), data["env_names"]))

    def spec_text(self, run_id: str) -> str:
        """Return the text of spec.json, complete or not; raise OSError if it cannot be read."""
        text = read_regular(self.path(run_id) / rundir.SPEC, limit_bytes=OWN_LIMIT_BYTES)
        return text.decode(errors="replace")

    def load_environment(self, run_id: str) -> Parts:
        """Return the submitted environment of a run that has not ended; raise as `load_spec` does."""
        path = self.path(run_id) / rundir.ENVIRONMENT
        facts = os.lstat(path)
        is_empty = stat.S_ISREG(facts.st_mode) and facts.st_size == 0
        return self.load_kept(run_id)._replace(secret={} if is_empty else _load(path, environment_of))

    def load_kept(self, run_id: str) -> Parts:
        """Return the submitted environment without its secrets; raise as `load_spec` does.

        A part whose file does not exist is empty.
        """
        parts = Parts({}, {}, {})
        for name, part in (
            (rundir.CALLER_ENVIRONMENT, parts.caller),
            (rundir.GIVEN_ENVIRONMENT, parts.given),
        ):
            with contextlib.suppress(FileNotFoundError):
                part.update(_load(self.path(run_id) / name, environment_of))
        return parts

    def forget_environment(self, run_id: str) -> None:
        """Remove the secrets of the submitted environment; a run in TERM does not need them."""
        try:
            (self.path(run_id) / rundir.ENVIRONMENT).unlink(missing_ok=True)
        except NotADirectoryError:
            pass  # a file is in place of the run's directory

    def read_attempt(self, run_id: str, attempt: int, owner_uid: int) -> AttemptFiles:
        """Return the content of an attempt's files; all are absent if the attempt has no directory."""
        return read_attempt(self.path(run_id), attempt, owner_uid)

    def probe_attempt_dir(self, run_id: str) -> OSError | None:
        """Make and remove a directory with a file, as for an attempt; return the error if that fails."""
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


def _load(path: Path, convert: Callable[[Json], T]) -> T:
    try:
        content = json.loads(read_regular(path, limit_bytes=OWN_LIMIT_BYTES))
        if not isinstance(content, dict):
            raise InvalidSpec("the file does not contain a JSON object")
        return convert(content)
    except NotTrusted as error:
        raise InvalidSpec(f"{path} is not valid: {error.strerror}") from error
    except RecursionError as error:
        raise InvalidSpec(f"{path} is not valid: it is nested too deeply") from error
    except ValueError as error:  # no JSON, no UTF-8, or an InvalidSpec without the path
        raise InvalidSpec(f"{path} is not valid: {error}") from error


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
