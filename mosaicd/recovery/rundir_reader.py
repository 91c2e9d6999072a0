"""Read the run directories for a recovery: runs that the registry does not know, and rows that are behind.

Note: the reader does not decide whether a process tree is empty, because only the launcher can check that.  A
run whose tree was not checked is recovered up to the state that its files prove; reconcile does the rest, as
after any crash.  Only a run that had ended before is written as ended.

Which directories become runs:
- with an attempt: a row was on the disk before the attempt was ordered, so the run is recovered;
- without an attempt and without the mark `unacknowledged`: the client had the reply, so the run waits again
  (or, if its environment is removed, the run had ended before it started);
- with the mark `unacknowledged`: its COMMIT may never have been made, and no client had a reply.  Reconcile
  removes it; a submit with the same key, id or config makes a new run;
- with the mark `pruned`: the run had ended and its pruning had begun.  It is recovered as ended and pruned in
  the same transaction, so its id is never used again.  If its spec is removed, reconcile removes the rest.

Races: the reader waits for a shim between its lock and launch.json, because launch.json has the nonce of the
attempt.  A shim that ends during the reading has written exit.json before reconcile reads it.  No directory
appears after the reading, because the daemon holds the lock of the state directory and the last launcher
exited with its daemon.  If a shim of that launcher registers later, no row has its nonce: the daemon refuses
it, and it exits without starting a worker.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mosaicd.clock import Clock
from mosaicd.core import new_run, replay_rundir
from mosaicd.core.fsm import IllegalTransition, Kind
from mosaicd.core.new_run import Timeouts
from mosaicd.core.replay_rundir import Claim, RunDirFacts
from mosaicd.core.run import Progress, Run
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.directories import Outline, RunDirs
from mosaicd.store.recovering import MissingRuns, RecoveredRun

#: The longest wait for all shims together that have a lock and no launch.json yet.
LAUNCH_S = 2.0
#: Errors of a directory that does not describe a run.
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    IllegalTransition,
)  # fmt: skip


class RunDirReader:
    """Read the run directories for one opening of the registry; `name_of` returns a uid's user name."""

    def __init__(
        self, rundirs: RunDirs, timeouts: Timeouts, clock: Clock, name_of: Callable[[int], str]
    ) -> None:
        self._rundirs = rundirs
        self._timeouts = timeouts
        self._clock = clock
        self._name_of = name_of
        self._waits_until_mono: float | None = None

    def has_runs(self) -> bool:
        """Return whether a directory has the name of a run."""
        return any(map(ulid.is_ulid, self._rundirs.names()))

    def find_missing(self, known: frozenset[str], live: Sequence[Run], has_loss: bool) -> MissingRuns:
        """Return the runs that are not in `known`, and the steps that the rows of `live` runs lack.

        `has_loss`: the registry is known to lack commits; otherwise only the directories show it.
        """
        missing = MissingRuns()
        unknown = [name for name in self._rundirs.names() if name not in known]
        read = list(self._read_unknown(unknown, missing.unreadable))
        if not has_loss and not read and not any(map(self._has_later_attempt, live)):
            return missing
        rows = [(run, row) for run in live if (row := self._read_live(run)) is not None]
        behind = [row for run, row in rows if run.attempt < row.newest_attempt]
        ids_behind = {row.run.run_id for row in behind}
        holding = [run for run in live if run.is_holding and run.run_id not in ids_behind]
        claims = [Claim(run.run_id, run.slots, run.dispatched_at or 0.0) for run in holding]
        lost_slots = replay_rundir.runs_that_lost_slots(claims + _claims([*read, *behind]))
        missing.without_row = list(self._replayed(read, lost_slots, missing.unreadable))
        for run, row in rows:
            try:
                steps = replay_rundir.catch_up(run, row.attempts, self._facts(row, lost_slots))
            except _UNREADABLE as error:
                missing.unreadable[run.run_id] = f"{type(error).__name__}: {error}"
                continue
            if steps:
                missing.behind.append((run, steps))
        return missing

    def _read_unknown(self, names: Iterable[str], unreadable: dict[str, str]) -> "Iterator[_RunDir]":
        """Read each directory with a run id as name; one that cannot be read goes to `unreadable`."""
        for name in names:
            if not ulid.is_ulid(name) or name != name.upper():
                continue
            try:
                outline = self._rundirs.outline(name)
                if not outline.is_unacknowledged and not outline.is_remnant:
                    yield self._read(outline, self._new_run(name))
            except _UNREADABLE as error:
                unreadable[name] = f"{type(error).__name__}: {error}"

    def _has_later_attempt(self, run: Run) -> bool:
        """Return whether an attempt exists that the row does not know: the commit of its dispatch is lost."""
        path = rundir.attempt_dir(str(self._rundirs.path(run.run_id)), run.attempt + 1)
        return os.path.lexists(path)

    def _read_live(self, run: Run) -> "_RunDir | None":
        """Read the directory of a live run from its current attempt on; None if it cannot be read."""
        try:
            return self._read(self._rundirs.outline(run.run_id), run)
        except OSError:
            return None

    def _new_run(self, run_id: str) -> Run:
        spec, _ = self._rundirs.load_spec(run_id)
        status = os.stat(self._rundirs.path(run_id) / rundir.SPEC)
        owner = (status.st_uid, self._name_of(status.st_uid))
        return new_run.of_spec(spec, run_id, status.st_mtime, owner, self._timeouts)

    def _read(self, outline: Outline, run: Run) -> "_RunDir":
        numbers = [number for number in outline.attempts if number >= run.attempt]
        attempts = [self._read_attempt(run, number) for number in numbers]
        changed_at = os.stat(self._rundirs.path(run.run_id)).st_mtime
        return _RunDir(run, attempts, outline.has_environment, outline.is_pruned, changed_at)

    def _read_attempt(self, run: Run, number: int) -> AttemptFiles:
        """Read an attempt; if its shim has just taken the lock, wait for launch.json."""
        while True:
            files = self._rundirs.read_attempt(run.run_id, number, run.owner_uid)
            # Only launch.json has the nonce; the lock alone shows only the process of the shim.
            has_nonce = files.launch is not None and bool(files.launch.nonce)
            if not files.is_held or has_nonce or self._has_waited():
                has_begun = has_nonce or files.started is not None  # then its worker may live
                return files if has_begun or not files.is_held else replace(files, launch=None)
            time.sleep(0.01)

    def _has_waited(self) -> bool:
        """Return whether the time to wait for shims is over; the first call starts it."""
        if self._waits_until_mono is None:
            self._waits_until_mono = self._clock.mono() + LAUNCH_S
        return self._clock.mono() > self._waits_until_mono

    def _replayed(
        self, read: "Iterable[_RunDir]", lost_slots: frozenset[str], unreadable: dict[str, str]
    ) -> Iterator[RecoveredRun]:
        """Yield the runs of these directories in the order of submission."""
        for directory in sorted(read, key=lambda item: (item.run.created_at, item.run.run_id)):
            run = directory.run
            try:
                steps = replay_rundir.replay(run, directory.attempts, self._facts(directory, lost_slots))
            except _UNREADABLE as error:
                unreadable[run.run_id] = f"{type(error).__name__}: {error}"
                continue
            # The data of the event are checked, unlike the file.
            exits = [event.data for _, event in steps if event.kind is Kind.EXITED]
            progress = Progress().after_exit(exits[-1]) if exits else Progress()
            yield RecoveredRun(steps, progress, directory.is_held, directory.is_pruned)

    def _facts(self, directory: "_RunDir", lost_slots: frozenset[str]) -> RunDirFacts:
        is_over = (directory.is_pruned or not directory.has_environment) and not directory.is_held
        has_lost_slots = directory.run.run_id in lost_slots
        return RunDirFacts(directory.changed_at, self._clock.boot_id(), is_over, has_lost_slots)


@dataclass(frozen=True, slots=True)
class _RunDir:
    """The contents of a run directory; `run` is a new run, or the run of the row."""

    run: Run
    attempts: list[AttemptFiles]
    has_environment: bool
    is_pruned: bool
    changed_at: float

    @property
    def newest_attempt(self) -> int:
        """Return the number of the newest attempt with a launch.json; 0 if there is none."""
        return max((attempt.number for attempt in self.attempts if attempt.launch is not None), default=0)

    @property
    def is_held(self) -> bool:
        """Return whether a shim of the run lives."""
        return any(attempt.is_held for attempt in self.attempts)


def _claims(read: Iterable[_RunDir]) -> list[Claim]:
    claims = (replay_rundir.newest_claim(item.run.run_id, item.attempts) for item in read)
    return [claim for claim in claims if claim is not None]
