"""What is done while no daemon runs: look over the state directory, and restore a copy of the registry.

Both print one JSON document.  Restoring holds the daemon's own locks, so the two exclude each other; looking
takes none, lest a daemon that just starts finds them taken.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.host import lock
from mosaicd.protocol import Json, rundir, ulid
from mosaicd.protocol.states import Want
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.store.backup import UnfitCopy
from mosaicd.store.replacing import finish, run_ids, stage_copy
from mosaicd.upkeep.inspection import REGISTRY_FILE, inspect

WHO = "restore"


def check(settings: Settings, *, fix: bool) -> int:
    """Print what there is and what is wrong in the state directory; with `fix`, after the safe repairs."""
    _say(inspect(settings, Clock().wall(), fix=fix))
    return 0


def restore(settings: Settings, copy: Path) -> int:
    """Put a copy in the registry's place and say what became of what; CannotServe, and nothing is changed."""
    clock = Clock()
    locks = lock.acquire(settings.state_dir, settings.socket, started_at=clock.wall())
    try:
        _say(_restore(settings.state_dir, copy, clock.wall()))
    except UnfitCopy as error:
        raise lock.CannotServe(str(error)) from error
    finally:
        locks.close()
    return 0


def _restore(state_dir: Path, copy: Path, at: float) -> Json:
    registry, runs = state_dir / REGISTRY_FILE, state_dir / "runs"
    finish(registry)  # a replacement that was decided before comes first
    known = run_ids(copy)
    staged = stage_copy(copy, registry, _decision(runs, at), at)
    aside = finish(registry)
    unknown = [name for name in _names(runs) if ulid.is_ulid(name) and name not in known]
    return {
        "restored_from": str(copy), "registry": str(registry), "set_aside": str(aside), "epoch": staged.epoch,
        "last_seq": staged.last_seq, "runs": staged.runs, "version": staged.version,
        "held": staged.changed.get(Kind.HOLD, []), "as_found": staged.unchanged,
        "quarantined": staged.quarantined, "unknown_directories": unknown,
        "at_work": [name for name in unknown if held_attempts(runs / name)],
    }  # fmt: skip


def _decision(runs: Path, at: float) -> Callable[[Run], Sequence[Event]]:
    """Return what becomes of a run that lived when the copy was made.

    Nothing starts twice: what waited is held, because it may have been stopped since.  All else is left to
    the next start, which asks its files: what works, and what has begun, or ended, since then.
    """

    def decide(run: Run) -> Sequence[Event]:
        began = os.path.lexists(rundir.attempt_dir(str(runs / run.run_id), run.attempt + 1))
        if run.is_waiting and not began and not run.held and run.want is not Want.STOP:
            return [Event(Kind.HOLD, at, WHO)]
        return []

    return decide


def _names(runs: Path) -> list[str]:
    try:
        with os.scandir(runs) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _say(document: Json) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
