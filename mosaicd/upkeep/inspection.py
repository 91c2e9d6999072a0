"""What is wrong in a state directory: facts for the doctor, and the few repairs that can hurt nobody.

The same function answers for a daemon that runs and for `mosaicd --check` without one.  What makes facts
into advice is the client's; what is not safe to repair (data, processes) is told and never touched.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaicd import __version__
from mosaicd.config import Settings
from mosaicd.protocol import rundir
from mosaicd.protocol.states import State
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.store.inspection import Found
from mosaicd.store.inspection import inspect as inspect_registry

REGISTRY_FILE = "registry.sqlite3"
KEY_FILE = "launch.key"
#: How many of a kind are told one by one.
MOST_TOLD = 100
MOST_LIVE = 2000
#: A temporary file younger than this may be somebody's work of right now.
STALE_S = 3600.0
_TEMPORARY = (".tmp", ".new", ".part")
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that serves nothing any more, and why."""

    path: Path
    why: str


def inspect(settings: Settings, now: float, *, fix: bool = False) -> dict[str, Any]:
    """Return what is there and what is wrong; with `fix`, after repairing what is safe to.

    Blocks while it reads the whole registry and every run directory.  `now` Unix seconds.
    """
    state_dir = settings.state_dir
    found = inspect_registry(state_dir / REGISTRY_FILE)
    modes = [mode for mode in _modes(settings, found) if mode is not None]
    strays = list(_strays(state_dir, found, now))
    fixed = [*_close(modes), *_remove(strays)] if fix else []
    live = [
        {"run_id": run_id, "state": found.states[run_id], "attempt": attempt}
        for run_id, attempt in list(found.attempts.items())[:MOST_LIVE]
    ]
    return {
        "version": __version__, "socket": str(settings.socket), "state_dir": str(state_dir), "at": now,
        "registry": found.told(), "live": live, "live_count": len(found.attempts),
        "modes": modes[:MOST_TOLD], "directories": _directories(state_dir, found, strays),
        "disk": _disk(state_dir), "fixed": fixed,
    }  # fmt: skip


# --- who may read what --------------------------------------------------------------------------------


def _modes(settings: Settings, found: Found) -> Iterator[dict[str, Any] | None]:
    """Yield what is open to more people than it should be, or somebody else's."""
    state_dir = settings.state_dir
    yield _mode(settings.socket, _OTHERS)
    yield _mode(state_dir, _OTHERS_WRITE)
    yield _mode(state_dir / "runs", _OTHERS_WRITE)
    yield _mode(state_dir / KEY_FILE, _OTHERS)
    for suffix in ("", "-wal", "-shm"):
        yield _mode(state_dir / (REGISTRY_FILE + suffix), _OTHERS)
    for run_id in found.attempts:
        yield _mode(state_dir / "runs" / run_id / rundir.ENVIRONMENT, _OTHERS)


def _mode(path: Path, forbidden: int) -> dict[str, Any] | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    mode, is_ours = stat.S_IMODE(facts.st_mode), facts.st_uid == os.geteuid()
    if is_ours and not mode & forbidden:
        return None
    return {
        "path": str(path), "mode": f"{mode:04o}", "wanted": f"{mode & ~forbidden:04o}",
        "owner_uid": facts.st_uid, "is_ours": is_ours,
    }  # fmt: skip


def _close(modes: list[dict[str, Any]]) -> Iterator[str]:
    for mode in modes:
        if mode["is_ours"] and not os.path.islink(mode["path"]):
            with suppress(OSError):
                os.chmod(mode["path"], int(mode["wanted"], 8))
                mode["is_fixed"] = True
                yield f"chmod {mode['wanted']} {mode['path']}"


# --- what is left over --------------------------------------------------------------------------------


def _strays(state_dir: Path, found: Found, now: float) -> Iterator[Stray]:
    """Yield files that serve nothing: secrets of ended runs, and what a crash left half written."""
    for folder in (state_dir, state_dir / "backups"):
        yield from _half_written(folder, now)
    for run_id, state in found.states.items():
        if state != State.TERM or found.faults:
            continue
        directory = state_dir / "runs" / run_id
        environment = directory / rundir.ENVIRONMENT
        if os.path.lexists(environment):
            yield Stray(environment, "environment of an ended run")
        for folder in _entries(directory, lambda entry: entry.name.startswith(rundir.ATTEMPT_PREFIX)):
            yield from _half_written(folder, now)


def _half_written(folder: Path, now: float) -> Iterator[Stray]:
    for path in _entries(folder, lambda entry: entry.name.endswith(_TEMPORARY)):
        with suppress(OSError):
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and facts.st_mtime < now - STALE_S:
                yield Stray(path, "half-written file")


def _entries(folder: Path, is_wanted: Callable[["os.DirEntry[str]"], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if is_wanted(entry)]
    except OSError:
        return []


def _remove(strays: list[Stray]) -> Iterator[str]:
    removed: dict[str, int] = {}
    for stray in list(strays):
        with suppress(OSError):
            stray.path.unlink()
            strays.remove(stray)
            removed[stray.why] = removed.get(stray.why, 0) + 1
    for why, count in removed.items():
        yield f"removed {count} x {why}"


def _directories(state_dir: Path, found: Found, strays: list[Stray]) -> dict[str, Any]:
    runs = state_dir / "runs"
    names = {path.name for path in _entries(runs, lambda entry: entry.is_dir(follow_symlinks=False))}
    unknown = sorted(names - found.states.keys() - set(found.pruned_left)) if not found.faults else []
    ended = [run_id for run_id, state in found.states.items() if state == State.TERM and run_id in names]
    held = [run_id for run_id in ended if held_attempts(runs / run_id)]
    missing = sorted(run_id for run_id in found.attempts if run_id not in names)
    told = [{"name": name, "is_held": bool(held_attempts(runs / name))} for name in unknown[:MOST_TOLD]]
    return {
        "unknown": told,
        "unknown_count": len(unknown), "missing": missing[:MOST_TOLD], "missing_count": len(missing),
        "held_after_end": held[:MOST_TOLD],
        "strays": [{"path": str(stray.path), "why": stray.why} for stray in strays[:MOST_TOLD]],
        "strays_count": len(strays),
    }  # fmt: skip


def _disk(state_dir: Path) -> dict[str, Any]:
    try:
        facts = os.statvfs(state_dir)
    except OSError as error:
        return {"error": error.strerror}
    return {
        "free_bytes": facts.f_bavail * facts.f_frsize, "total_bytes": facts.f_blocks * facts.f_frsize,
        "free_inodes": facts.f_favail, "total_inodes": facts.f_files,
    }  # fmt: skip
