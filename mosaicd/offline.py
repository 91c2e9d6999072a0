"""What is done while no daemon runs: look over the state directory, and restore a copy of the registry.

Both print one JSON document.  Restoring holds the daemon's own locks, so the two exclude each other; looking
takes none, lest a daemon that just starts finds them taken.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mosaicd import lock
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.inspection import REGISTRY_FILE, inspect
from mosaicd.protocol import rundir
from mosaicd.protocol.states import Want
from mosaicd.rundirs import held_attempts
from mosaicd.store.backup import UnfitCopy
from mosaicd.store.restoring import finish, live_runs, stage

WHO = "restore"


def check(settings: Settings, *, fix: bool) -> int:
    """Print what there is and what is wrong in the state directory; with `fix`, after the safe repairs."""
    _say(inspect(settings, Clock().wall(), fix=fix))
    return 0


def restore(settings: Settings, copy: Path, *, force: bool) -> int:
    """Put a copy in the registry's place and say what became of what; CannotServe, and nothing is changed."""
    clock = Clock()
    locks = lock.acquire(settings.state_dir, settings.socket, started_at=clock.wall())
    try:
        _say(_restore(settings.state_dir, copy, clock.wall(), force))
    except UnfitCopy as error:
        raise lock.CannotServe(str(error)) from error
    finally:
        locks.close()
    return 0


def _restore(state_dir: Path, copy: Path, at: float, force: bool) -> dict[str, Any]:
    registry, runs = state_dir / REGISTRY_FILE, state_dir / "runs"
    finish(registry)  # one that was decided before comes first
    known = live_runs(copy)
    homeless = _homeless(runs, known)
    if homeless and not force:
        raise lock.CannotServe(
            f"{len(homeless)} runs work that the copy does not know as working: {', '.join(homeless[:5])}. "
            "Nobody would watch them or free what they hold: start the daemon and stop them first "
            "(or --force leaves them to themselves)"
        )
    staged = stage(copy, registry, _judge(runs, at), at)
    aside = finish(registry)
    moved = _set_aside(runs, known, aside) if aside is not None else []
    return {
        "restored_from": str(copy), "registry": str(registry), "set_aside": str(aside), "epoch": staged.epoch,
        "last_seq": staged.last_seq, "runs": staged.runs, "version": staged.version,
        "held": staged.told.get(Kind.HOLD, []), "ended": staged.told.get(Kind.STOP_REQUESTED, []),
        "as_found": staged.told.get("as_found", []), "quarantined": staged.told.get("quarantined", []),
        "not_started_set_aside": moved, "left_alone": homeless,
        "unknown_directories": sorted(set(_names(runs)) - known.keys()),
    }  # fmt: skip


def _judge(runs: Path, at: float) -> Callable[[Run], Sequence[Event]]:
    """Return what becomes of a run that lived when the copy was made.

    Nothing starts twice: what has begun since then is not begun again, and what waited is held, because
    it may have been stopped since.  What worked is left to reconcile, which asks its files.
    """

    def decide(run: Run) -> Sequence[Event]:
        began = os.path.lexists(rundir.attempt_dir(str(runs / run.run_id), run.attempt + 1))
        if began and run.want is not Want.STOP:
            reason = "another attempt of it began after the restored copy was made"
            return [Event(Kind.STOP_REQUESTED, at, WHO, {"reason": reason})]
        if run.is_waiting and not began and not run.held and run.want is not Want.STOP:
            return [Event(Kind.HOLD, at, WHO)]
        return []

    return decide


def _homeless(runs: Path, known: dict[str, int]) -> list[str]:
    """Return runs whose shim works on an attempt that the copy does not know as going on."""
    return [
        name
        for name in _names(runs)
        if any(attempt != known.get(name) for attempt in held_attempts(runs / name))
    ]


def _set_aside(runs: Path, known: dict[str, int], aside: Path) -> list[str]:
    """Move directories of runs that are unknown now and never began: a start would take them for rubbish."""
    moved = []
    for name in _names(runs):
        begun = any(entry.startswith(rundir.ATTEMPT_PREFIX) for entry in os.listdir(runs / name))
        if name not in known and not begun:
            (aside / "runs").mkdir(mode=0o700, exist_ok=True)
            shutil.move(runs / name, aside / "runs" / name)
            moved.append(name)
    return moved


def _names(runs: Path) -> list[str]:
    try:
        with os.scandir(runs) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
