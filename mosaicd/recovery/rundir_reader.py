"""Reads the run directories for recovery: which runs the registry does not know, which rows are too old.

Note: nothing is concluded here that only the launcher can confirm.  A live run, and a run whose process tree
nothing has checked yet, comes back as far as its files go; reconcile does the rest, as after any other crash.
Only a run that was final before is written as final.

Which directories become runs:
- with an attempt: a row was on the disk before the attempt was ordered, so the run comes back;
- without an attempt and without the mark `unacknowledged`: its submitter had the reply, so the run waits
  again (or, if its environment is gone, the run was over before it began);
- with the mark `unacknowledged`: its COMMIT may never have been made, and no client had a reply.  Reconcile
  removes it; a submit with the same key, id or config makes a new run;
- with the mark `pruned`: the run had ended and was to be removed.  It comes back as ended and is pruned in
  the same transaction, so its id stays spent.  If its spec is gone, reconcile removes the rest.

Races that were considered: a shim between its lock and launch.json is waited for, because launch.json says
which attempt it is.  A shim that ends during the reading has written exit.json before reconcile reads it.  No
directory appears after the reading, because the lock of the state directory is held and the last launcher
ends with its daemon.  If a shim of that launcher registers later all the same, no row has its nonce: it is
refused, and leaves without having started anything.
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
from mosaicd.core.spec import Spec
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.directories import Outline, RunDirs
from mosaicd.store.recovering import MissingRuns, RecoveredRun

#: How long the reader waits for shims that have their locks and no launch.json yet, all together.
LAUNCH_S = 2.0
#: Errors of a directory that does not describe a run.
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    IllegalTransition,
)  # fmt: skip


class RunDirReader:
    """Reads once for each opening of the registry; `name_of` returns the user name of a uid."""

    def __init__(
        self, rundirs: RunDirs, timeouts: Timeouts, clock: Clock, name_of: Callable[[int], str]
    ) -> None:
        self._rundirs = rundirs
        self._timeouts = timeouts
        self._clock = clock
        self._name_of = name_of
        self._waits_until_mono: float | None = None

    def has_runs(self) -> bool:
        """Whether there is a directory that may be a run's."""
        return any(map(ulid.is_ulid, self._rundirs.names()))

    def find_missing(self, known: frozenset[str], live: Sequence[Run], has_loss: bool) -> MissingRuns:
        """Return the runs that are not in `known`, and what the rows of `live` runs lack.

        `has_loss`: the registry is known to lack commits; else the directories alone decide that.
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
        """Read each directory that may be a run's; those that do not describe a run go to `unreadable`."""
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
        """Whether there is an attempt that the row does not know: its dispatch was committed, and is lost."""
        path = rundir.attempt_dir(str(self._rundirs.path(run.run_id)), run.attempt + 1)
        return os.path.lexists(path)

    def _read_live(self, run: Run) -> "_RunDir | None":
        """Read the directory of a live run from its present attempt on; None if it cannot be read."""
        try:
            return self._read(self._rundirs.outline(run.run_id), run)
        except OSError:
            return None

    def _new_run(self, run_id: str) -> Run:
        spec = Spec.from_dict(self._rundirs.load_spec(run_id))
        status = os.stat(self._rundirs.path(run_id) / rundir.SPEC)
        owner = (status.st_uid, self._name_of(status.st_uid))
        return new_run.of_spec(spec, run_id, status.st_mtime, owner, self._timeouts)

    def _read(self, outline: Outline, run: Run) -> "_RunDir":
        numbers = [number for number in outline.attempts if number >= run.attempt]
        attempts = [self._read_attempt(run, number) for number in numbers]
        changed_at = os.stat(self._rundirs.path(run.run_id)).st_mtime
        return _RunDir(run, attempts, outline.has_environment, outline.is_pruned, changed_at)

    def _read_attempt(self, run: Run, number: int) -> AttemptFiles:
        """Read an attempt; wait for launch.json where a shim has just taken its lock."""
        while True:
            files = self._rundirs.examine(run.run_id, number, run.owner_uid)
            # Only launch.json has the nonce; the holder of a lock is known without it.
            has_nonce = files.launch is not None and bool(files.launch.nonce)
            if not files.is_held or has_nonce or self._has_waited():
                has_begun = has_nonce or files.started is not None  # then its worker may live
                return files if has_begun or not files.is_held else replace(files, launch=None)
            time.sleep(0.01)

    def _has_waited(self) -> bool:
        """Whether the time to wait for shims is over; the first call begins it."""
        if self._waits_until_mono is None:
            self._waits_until_mono = self._clock.mono() + LAUNCH_S
        return self._clock.mono() > self._waits_until_mono

    def _replayed(
        self, read: "Iterable[_RunDir]", lost_slots: frozenset[str], unreadable: dict[str, str]
    ) -> Iterator[RecoveredRun]:
        """Yield the runs of these directories in the order of submission."""
        for one in sorted(read, key=lambda one: (one.run.created_at, one.run.run_id)):
            try:
                steps = replay_rundir.replay(one.run, one.attempts, self._facts(one, lost_slots))
            except _UNREADABLE as error:
                unreadable[one.run.run_id] = f"{type(error).__name__}: {error}"
                continue
            exits = [
                event.data for _, event in steps if event.kind is Kind.EXITED
            ]  # checked, unlike the file
            progress = Progress().after_exit(exits[-1]) if exits else Progress()
            yield RecoveredRun(steps, progress, one.is_held, one.is_pruned)

    def _facts(self, one: "_RunDir", lost_slots: frozenset[str]) -> RunDirFacts:
        is_over = (one.is_pruned or not one.has_environment) and not one.is_held
        has_lost_slots = one.run.run_id in lost_slots
        return RunDirFacts(one.changed_at, self._clock.boot_id(), is_over, has_lost_slots)


@dataclass(frozen=True, slots=True)
class _RunDir:
    """The directory of a run as it was read; `run` is new, or is the row as it stands."""

    run: Run
    attempts: list[AttemptFiles]
    has_environment: bool
    is_pruned: bool
    changed_at: float

    @property
    def newest_attempt(self) -> int:
        """The number of the last attempt that began; 0 where none began."""
        return max((one.number for one in self.attempts if one.launch is not None), default=0)

    @property
    def is_held(self) -> bool:
        """Whether a shim of the run lives."""
        return any(one.is_held for one in self.attempts)


def _claims(read: Iterable[_RunDir]) -> list[Claim]:
    claims = (replay_rundir.newest_claim(one.run.run_id, one.attempts) for one in read)
    return [one for one in claims if one is not None]
