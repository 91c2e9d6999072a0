"""A registry that cannot be used, or is gone: set aside whole, and made again from the run directories.

A reader would get wrong: nothing is concluded here that the launcher must confirm.  A run that lives, or
whose end nobody has looked at yet, comes back as far as its files go, and reconcile takes it from there as
after any other crash; only what was final before is written as final.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mosaicd.clock import Clock
from mosaicd.core.birth import Timeouts, born
from mosaicd.core.fsm import IllegalTransition
from mosaicd.core.recollect import Attempt, recollect
from mosaicd.core.run import Progress, Run
from mosaicd.core.spec import Spec
from mosaicd.protocol import rundir, ulid
from mosaicd.rundirs import RunDirs
from mosaicd.store import rebuilding
from mosaicd.store.database import DamagedRegistry
from mosaicd.store.rebuilding import Rebuilt, Recollected

log = logging.getLogger(__name__)

GONE = "the registry was gone or empty, and there were run directories"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rebuilt run takes from outside its directory; `name_of` a uid."""

    timeouts: Timeouts
    clock: Clock
    name_of: Callable[[int], str]


def care(registry: Path, rundirs: RunDirs, facts: Facts) -> Rebuilt | None:
    """Make a registry again that is gone although there are runs; None where there is nothing to do."""
    if not rebuilding.is_blank(registry) or not any(ulid.is_ulid(name) for name in _names(rundirs)):
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
    found = list(recollected(rundirs, facts, not_rebuilt))
    made = rebuilding.rebuild(registry, found, not_rebuilt, why, facts.clock.wall())
    _put_away(rundirs, made)
    log.error("%s", rebuilding.sentence(made.told()))
    for name, reason in made.not_rebuilt.items():
        log.warning("directory %s does not tell of its run: %s", name, reason)
    return made


def recollected(rundirs: RunDirs, facts: Facts, not_rebuilt: dict[str, str]) -> Iterator[Recollected]:
    """Yield what the directories tell, in the order of submission; `not_rebuilt` gets those that do not."""
    runs: list[Recollected] = []
    for name in _names(rundirs):
        if not ulid.is_ulid(name):
            continue
        try:
            runs.append(_recollect(rundirs, name, facts))
        except (OSError, ValueError, KeyError, TypeError, IllegalTransition) as error:
            not_rebuilt[name] = f"{type(error).__name__}: {error}"
    runs.sort(key=lambda found: (found[0][0][0].created_at, found[0][0][0].run_id))
    yield from _with_slots_of_their_own(runs, not_rebuilt)


def _with_slots_of_their_own(runs: list[Recollected], not_rebuilt: dict[str, str]) -> Iterator[Recollected]:
    """Leave out whoever claims what another holds: two of them cannot both be true."""
    claimed: dict[int, str] = {}
    for steps, _ in runs:
        run = steps[-1][0]
        if run.pid is not None and run.exit is None:  # who works comes first
            claimed |= dict.fromkeys(run.slots, run.run_id)
    for steps, progress in runs:
        run = steps[-1][0]
        others = {claimed.setdefault(slot, run.run_id) for slot in run.slots} - {run.run_id}
        if others:
            not_rebuilt[run.run_id] = f"run {min(others)} holds the same slots"
        else:
            yield steps, progress


def _recollect(rundirs: RunDirs, run_id: str, facts: Facts) -> Recollected:
    directory = rundirs.path(run_id)
    spec = Spec.from_dict(rundirs.load_spec(run_id))
    status = os.stat(directory / rundir.SPEC)
    owner = (status.st_uid, facts.name_of(status.st_uid))
    run = born(spec, run_id, status.st_mtime, owner, facts.timeouts)
    attempts = _attempts(rundirs, directory, run)
    is_over = not os.path.lexists(directory / rundir.ENVIRONMENT) and not any(a.is_held for a in attempts)
    steps = recollect(
        run, attempts, is_over=is_over, over_at=os.stat(directory).st_mtime, boot_id=facts.clock.boot_id()
    )
    ends = [attempt.exit for attempt in attempts if attempt.exit]
    return steps, Progress().after_exit(ends[-1]) if ends else Progress()


def _attempts(rundirs: RunDirs, directory: Path, run: Run) -> list[Attempt]:
    numbers = []
    for name in os.listdir(directory):
        tail = name.removeprefix(rundir.ATTEMPT_PREFIX)
        if tail != name and tail.isascii() and tail.isdigit() and str(int(tail)) == tail:
            numbers.append(int(tail))
    found = [(number, rundirs.examine(run.run_id, number, run.owner_uid)) for number in sorted(numbers)]
    return [Attempt(number, f.launch, f.started, f.exit, f.is_held) for number, f in found]


def _names(rundirs: RunDirs) -> list[str]:
    with os.scandir(rundirs.runs) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _put_away(rundirs: RunDirs, made: Rebuilt) -> None:
    """Move directories that told nothing and never began beside the old registry: start-up removes such."""
    for name in made.not_rebuilt:
        path = rundirs.path(name)
        if any(entry.startswith(rundir.ATTEMPT_PREFIX) for entry in os.listdir(path)):
            continue
        aside = Path(made.set_aside) / "runs"
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(path, aside / name)
