"""A registry that knows less than the run directories: what they tell is made rows again.

One that cannot be used, or is gone, is set aside whole and made anew (`care`, `mend`).  One that opens
cleanly and is behind (it lost its newest commits, or is an older copy) is given what it lacks (`look`).

A reader would get wrong: nothing is concluded here that the launcher must confirm.  A run that lives, or
whose end nobody has looked at yet, comes back as far as its files go, and reconcile takes it from there as
after any other crash; only what was final before is written as final.

What comes back, and what does not:
- a directory with an attempt: a row was on the disk before the attempt was ordered, so it comes back;
- without one, and without the mark `unacknowledged`: its submitter was told, so it waits again (or, where its
  environment is gone, it was over before it began);
- with that mark: its COMMIT may never have been, and nobody was told; reconcile removes it, and who asks
  again with the same key, id or config gets a run that is the only one;
- with the mark `pruned`: it was ended, and to be removed; it comes back as ended and is pruned in the same
  transaction, so its id stays spent.  Without its spec, the removal had begun: what is left goes, too.

Interleavings that were thought of: a shim between its lock and launch.json is waited for, since who it is
decides whose attempt that is; a shim that ends while we look has written its exit by the time reconcile
looks, which it does after us; a directory that appears after the look cannot be, since the state directory's
lock is held and the launcher of before ends with its daemon.  Should a shim of that launcher's last order
come so late all the same, it finds no row that fits its nonce, is refused, and leaves without having started
anything.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.core import replay_rundir
from mosaicd.core.fsm import IllegalTransition, Kind
from mosaicd.core.new_run import Timeouts, born
from mosaicd.core.replay_rundir import Claim, Look
from mosaicd.core.run import Progress, Run
from mosaicd.core.spec import Spec
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.rundirs.directories import Outline, RunDirs
from mosaicd.store import adopting, rebuilding
from mosaicd.store.database import DamagedRegistry
from mosaicd.store.rebuilding import Rebuilt, Recollected

#: How long shims may take from their locks to launch.json, all together; whoever has not is taken for one
#: that stands still.
LAUNCH_S = 2.0
#: What a directory that makes no sense may fail of.
_NONSENSE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    IllegalTransition,
)  # fmt: skip

GONE = "the registry was gone or empty, and there were run directories"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rebuilt run takes from outside its directory; `name_of` a uid."""

    timeouts: Timeouts
    clock: Clock
    name_of: Callable[[int], str]
    patience: "Patience"


class Patience:
    """The time for which shims are waited for: it begins with the first, and is not begun again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end: float | None = None

    def is_over(self) -> bool:
        """Whether nobody is waited for any more."""
        if self._end is None:
            self._end = self._clock.mono() + LAUNCH_S
        return self._clock.mono() > self._end


def care(registry: Path, rundirs: RunDirs, facts: Facts) -> Rebuilt | None:
    """Make a registry again that is gone although there are runs; None where there is nothing to do."""
    if not rebuilding.is_blank(registry) or not any(map(ulid.is_ulid, rundirs.names())):
        return None
    return rebuild(registry, GONE, rundirs, facts)


def mend(registry: Path, damaged: DamagedRegistry, rundirs: RunDirs, facts: Facts) -> Rebuilt:
    """Set a damaged registry aside and make it again; `damaged` itself where it is another program's."""
    if not rebuilding.is_ours(registry):
        raise damaged
    return rebuild(registry, damaged.why, rundirs, facts)


def rebuild(registry: Path, why: str, rundirs: RunDirs, facts: Facts) -> Rebuilt:
    """Write another registry from what the directories tell, and put it in the place of the one there is."""
    not_rebuilt: dict[str, str] = {}
    seen = list(_seen(rundirs, rundirs.names(), facts, not_rebuilt))
    vacated = replay_rundir.vacated(_claims(seen))
    found = list(_recollected(seen, vacated, facts, not_rebuilt))
    made = rebuilding.rebuild(registry, found, not_rebuilt, why, facts.clock.wall())
    log.event(Catalogue.REGISTRY_REBUILT, summary=rebuilding.sentence(made.told()), why=why)
    for name, reason in made.not_rebuilt.items():
        log.event(Catalogue.DIRECTORY_NOT_RECOVERED, directory=name, why=reason)
    return made


def look(
    rundirs: RunDirs, facts: Facts, known: frozenset[str], live: Sequence[Run], is_behind: bool
) -> adopting.Found:
    """Return what the directories know and the registry does not: runs without a row, rows that are late.

    `is_behind`: the registry is known to lack commits; else that is concluded from what is found.
    """
    found = adopting.Found()
    strangers = [name for name in rundirs.names() if name not in known]
    seen = list(_seen(rundirs, strangers, facts, found.telling_nothing))
    if not is_behind and not seen and not any(_has_later_attempt(rundirs, run) for run in live):
        return found
    rows = [(run, row) for run in live if (row := _row(rundirs, run, facts)) is not None]
    later = [row for run, row in rows if run.attempt < row.newest]
    superseded = {row.run.run_id for row in later}
    holding = [run for run in live if run.is_holding and run.run_id not in superseded]
    claims = [Claim(run.run_id, run.slots, run.dispatched_at or 0.0) for run in holding]
    vacated = replay_rundir.vacated(claims + _claims([*seen, *later]))
    found.lost = list(_recollected(seen, vacated, facts, found.telling_nothing))
    for run, row in rows:
        try:
            steps = replay_rundir.catch_up(run, row.attempts, row.look(facts, run.run_id in vacated))
        except _NONSENSE as error:
            found.telling_nothing[run.run_id] = f"{type(error).__name__}: {error}"
            continue
        if steps:
            found.late.append((run, steps))
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """A run's directory as it was read; `run` as it was born, or as its row says."""

    run: Run
    attempts: list[AttemptFiles]
    has_environment: bool
    is_pruned: bool
    changed_at: float

    @property
    def newest(self) -> int:
        """The number of the last attempt that began."""
        return max((one.number for one in self.attempts if one.launch is not None), default=0)

    @property
    def is_held(self) -> bool:
        """Whether a shim of it lives."""
        return any(one.is_held for one in self.attempts)

    def look(self, facts: Facts, is_vacated: bool) -> Look:
        """Return what is known of it besides its attempts."""
        is_over = (self.is_pruned or not self.has_environment) and not self.is_held
        return Look(self.changed_at, facts.clock.boot_id(), is_over, is_vacated)


def _seen(
    rundirs: RunDirs, names: Iterable[str], facts: Facts, telling_nothing: dict[str, str]
) -> Iterator[_Seen]:
    """Read every directory that may be a run's; `telling_nothing` gets those that make no sense."""
    for name in names:
        if not ulid.is_ulid(name) or name != name.upper():
            continue
        try:
            outline = rundirs.outline(name)
            if not outline.is_unacknowledged and not outline.is_remnant:
                yield _read(rundirs, outline, _born(rundirs, name, facts), facts)
        except _NONSENSE as error:
            telling_nothing[name] = f"{type(error).__name__}: {error}"


def _has_later_attempt(rundirs: RunDirs, run: Run) -> bool:
    """Whether an attempt was made that the row does not know: it was committed before it was ordered."""
    return os.path.lexists(rundir.attempt_dir(str(rundirs.path(run.run_id)), run.attempt + 1))


def _row(rundirs: RunDirs, run: Run, facts: Facts) -> _Seen | None:
    """Read the directory of a live row, as far as it may be ahead of it; None where it cannot be."""
    try:
        return _read(rundirs, rundirs.outline(run.run_id), run, facts)
    except OSError:
        return None


def _born(rundirs: RunDirs, run_id: str, facts: Facts) -> Run:
    spec = Spec.from_dict(rundirs.load_spec(run_id))
    status = os.stat(rundirs.path(run_id) / rundir.SPEC)
    owner = (status.st_uid, facts.name_of(status.st_uid))
    return born(spec, run_id, status.st_mtime, owner, facts.timeouts)


def _read(rundirs: RunDirs, outline: Outline, run: Run, facts: Facts) -> _Seen:
    numbers = [number for number in outline.attempts if number >= run.attempt]
    attempts = [_attempt(rundirs, run, number, facts.patience) for number in numbers]
    changed_at = os.stat(rundirs.path(run.run_id)).st_mtime
    return _Seen(run, attempts, outline.has_environment, outline.is_pruned, changed_at)


def _attempt(rundirs: RunDirs, run: Run, number: int, patience: Patience) -> AttemptFiles:
    """Read an attempt; where a shim has just taken its lock, once it has said who it is."""
    while True:
        found = rundirs.examine(run.run_id, number, run.owner_uid)
        has_said = bool((found.launch or {}).get("nonce"))  # the rest is also known of who only has the lock
        if not found.is_held or has_said or patience.is_over():
            has_begun = has_said or found.started is not None  # then its worker may live
            launch = found.launch if has_begun or not found.is_held else None
            return replace(found, launch=launch)
        time.sleep(0.01)


def _claims(seen: Iterable[_Seen]) -> list[Claim]:
    claims = (replay_rundir.claim(one.run.run_id, one.attempts) for one in seen)
    return [one for one in claims if one is not None]


def _recollected(
    seen: Iterable[_Seen], vacated: frozenset[str], facts: Facts, telling_nothing: dict[str, str]
) -> Iterator[Recollected]:
    """Yield runs as their directories tell of them, in the order of submission."""
    for one in sorted(seen, key=lambda one: (one.run.created_at, one.run.run_id)):
        try:
            steps = replay_rundir.recollect(one.run, one.attempts, one.look(facts, one.run.run_id in vacated))
        except _NONSENSE as error:
            telling_nothing[one.run.run_id] = f"{type(error).__name__}: {error}"
            continue
        ends = [event.data for _, event in steps if event.kind is Kind.EXITED]  # no word of a file as it is
        progress = Progress().after_exit(ends[-1]) if ends else Progress()
        yield Recollected(steps, progress, one.is_held, one.is_pruned)
