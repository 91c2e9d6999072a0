"""Work without a running daemon: check the state directory, and restore a copy of the registry.

Both print one JSON document.  A restore holds the locks of the daemon, so it never runs beside a daemon.  A
check takes no lock, so it never keeps a daemon from starting.
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
from mosaicd.store.backup import InvalidCopy
from mosaicd.store.replacing import finish, run_ids, stage_copy
from mosaicd.upkeep.inspection import REGISTRY_FILE, inspect

WHO = "restore"


def check(settings: Settings, *, fix: bool) -> int:
    """Print the contents and the faults of the state directory; with `fix`, make the safe repairs first."""
    _print(inspect(settings, Clock().wall(), fix=fix))
    return 0


def restore(settings: Settings, copy: Path) -> int:
    """Replace the registry by a copy and print a report; raise CannotServe and change nothing otherwise."""
    clock = Clock()
    locks = lock.acquire(settings.state_dir, settings.socket, started_at=clock.wall())
    try:
        _print(_restore(settings.state_dir, copy, clock.wall()))
    except InvalidCopy as error:
        raise lock.CannotServe(str(error)) from error
    finally:
        locks.close()
    return 0


def _restore(state_dir: Path, copy: Path, at: float) -> Json:
    registry, runs = state_dir / REGISTRY_FILE, state_dir / "runs"
    finish(registry)  # an interrupted replacement is finished first
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
    """Return a function that decides the events for a run that was live when the copy was made.

    A waiting run is held, because it may have been stopped since the copy was made: no run starts twice.  For
    every other run, the next start of the daemon reads from the run directory whether it works or has ended.
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


def _print(document: Json) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
