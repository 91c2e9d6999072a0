"""Inspect a state directory: facts for `doctor`, and the few repairs that are safe.

A running daemon and `mosaicd --check` use the same function.  The client derives its advice from the facts.
Data and processes are reported and never changed, because a repair of them is not safe.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mosaicd import __version__
from mosaicd.config import Settings
from mosaicd.protocol import Json, rundir
from mosaicd.protocol.states import State
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.store.inspection import RegistryInspection
from mosaicd.store.inspection import inspect as inspect_registry

REGISTRY_FILE = "registry.sqlite3"
KEY_FILE = "launch.key"
#: The most items of one kind that are listed one by one.
MOST_LISTED = 100
MOST_LIVE = 2000
#: A temporary file younger than this may still be in use.
STALE_S = 3600.0
_TEMPORARY = (".tmp", ".new", ".part")
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


@dataclass(slots=True)
class OpenMode:
    """A path that more users can read or write than should, or that belongs to another user."""

    path: Path
    mode: int
    wanted: int
    owner_uid: int
    is_fixed: bool = False

    @property
    def is_ours(self) -> bool:
        """Return whether the path belongs to the user of this process."""
        return self.owner_uid == os.geteuid()

    def to_dict(self) -> Json:
        """Return the wire form."""
        return {
            "path": str(self.path),
            "mode": f"{self.mode:04o}",
            "wanted": f"{self.wanted:04o}",
            "owner_uid": self.owner_uid,
            "is_ours": self.is_ours,
            **({"is_fixed": True} if self.is_fixed else {}),
        }


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that no run needs any more, and the reason."""

    path: Path
    why: str


def inspect(settings: Settings, now: float, *, fix: bool = False) -> Json:
    """Return the contents and the faults of the state directory; with `fix`, make the safe repairs first.

    Blocks while it reads the complete registry and every run directory.  `now`: Unix seconds.
    """
    state_dir = settings.state_dir
    registry = inspect_registry(state_dir / REGISTRY_FILE)
    modes = list(_open_modes(settings, registry))
    strays = list(_strays(state_dir, registry, now))
    fixed = [*_fix_modes(modes), *_remove_strays(strays)] if fix else []
    live = [
        {"run_id": run_id, "state": registry.states[run_id], "attempt": attempt}
        for run_id, attempt in list(registry.attempts.items())[:MOST_LIVE]
    ]
    return {
        "version": __version__, "socket": str(settings.socket), "state_dir": str(state_dir), "at": now,
        "registry": registry.to_dict(), "live": live, "live_count": len(registry.attempts),
        "modes": [mode.to_dict() for mode in modes[:MOST_LISTED]],
        "directories": _directories(state_dir, registry, strays), "disk": _disk(state_dir), "fixed": fixed,
    }  # fmt: skip


# --- modes and owners ---------------------------------------------------------------------------------


def _open_modes(settings: Settings, registry: RegistryInspection) -> Iterator[OpenMode]:
    """Yield the paths of the daemon that are too open, or that belong to another user."""
    state_dir = settings.state_dir
    yield from _open_mode(settings.socket, _OTHERS)
    yield from _open_mode(state_dir, _OTHERS_WRITE)
    yield from _open_mode(state_dir / "runs", _OTHERS_WRITE)
    yield from _open_mode(state_dir / KEY_FILE, _OTHERS)
    for suffix in ("", "-wal", "-shm"):
        yield from _open_mode(state_dir / (REGISTRY_FILE + suffix), _OTHERS)
    for run_id in registry.attempts:
        yield from _open_mode(state_dir / "runs" / run_id / rundir.ENVIRONMENT, _OTHERS)
    for run_id in registry.states:
        for name in (rundir.GIVEN_ENVIRONMENT, rundir.CALLER_ENVIRONMENT):
            yield from _open_mode(state_dir / "runs" / run_id / name, _OTHERS)


def _open_mode(path: Path, forbidden: int) -> Iterator[OpenMode]:
    """Yield the path if it has a forbidden mode bit or belongs to another user."""
    try:
        facts = path.lstat()
    except OSError:
        return
    mode = stat.S_IMODE(facts.st_mode)
    open_mode = OpenMode(path, mode, mode & ~forbidden, facts.st_uid)
    if mode & forbidden or not open_mode.is_ours:
        yield open_mode


def _fix_modes(modes: list[OpenMode]) -> Iterator[str]:
    """Restrict the modes of the paths that are ours; yield each repair."""
    for mode in modes:
        if mode.is_ours and not mode.path.is_symlink():
            with suppress(OSError):
                os.chmod(mode.path, mode.wanted)
                mode.is_fixed = True
                yield f"chmod {mode.wanted:04o} {mode.path}"


# --- stray files --------------------------------------------------------------------------------------


def _strays(state_dir: Path, registry: RegistryInspection, now: float) -> Iterator[Stray]:
    """Yield files that no run needs: environments of ended runs, and old temporary files."""
    for folder in (state_dir, state_dir / "backups"):
        yield from _half_written(folder, now)
    for run_id, state in registry.states.items():
        if state != State.TERM or registry.faults:
            continue
        directory = state_dir / "runs" / run_id
        environment = directory / rundir.ENVIRONMENT
        if os.path.lexists(environment):
            yield Stray(environment, "environment of an ended run")
        for folder in _entries(directory, lambda entry: entry.name.startswith(rundir.ATTEMPT_PREFIX)):
            yield from _half_written(folder, now)


def _half_written(folder: Path, now: float) -> Iterator[Stray]:
    """Yield the old temporary files of a directory."""
    for path in _entries(folder, lambda entry: entry.name.endswith(_TEMPORARY)):
        with suppress(OSError):
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and facts.st_mtime < now - STALE_S:
                yield Stray(path, "incomplete file")


def _entries(folder: Path, is_wanted: Callable[["os.DirEntry[str]"], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if is_wanted(entry)]
    except OSError:
        return []


def _remove_strays(strays: list[Stray]) -> Iterator[str]:
    """Delete the stray files and take them from the list; yield the repairs."""
    removed: dict[str, int] = {}
    for stray in list(strays):
        with suppress(OSError):
            stray.path.unlink()
            strays.remove(stray)
            removed[stray.why] = removed.get(stray.why, 0) + 1
    for why, count in removed.items():
        yield f"removed {count} x {why}"


def _directories(state_dir: Path, registry: RegistryInspection, strays: list[Stray]) -> Json:
    """Return the run directories that do not match the registry, and the stray files."""
    runs = state_dir / "runs"
    names = {path.name for path in _entries(runs, lambda entry: entry.is_dir(follow_symlinks=False))}
    unknown = (
        sorted(names - registry.states.keys() - set(registry.pruned_left)) if not registry.faults else []
    )
    ended = [run_id for run_id, state in registry.states.items() if state == State.TERM and run_id in names]
    held = [run_id for run_id in ended if held_attempts(runs / run_id)]
    missing = sorted(run_id for run_id in registry.attempts if run_id not in names)
    listed = [{"name": name, "is_held": bool(held_attempts(runs / name))} for name in unknown[:MOST_LISTED]]
    return {
        "unknown": listed,
        "unknown_count": len(unknown), "missing": missing[:MOST_LISTED], "missing_count": len(missing),
        "held_after_end": held[:MOST_LISTED],
        "strays": [{"path": str(stray.path), "why": stray.why} for stray in strays[:MOST_LISTED]],
        "strays_count": len(strays),
    }  # fmt: skip


def _disk(state_dir: Path) -> Json:
    try:
        facts = os.statvfs(state_dir)
    except OSError as error:
        return {"error": error.strerror}
    return {
        "free_bytes": facts.f_bavail * facts.f_frsize, "total_bytes": facts.f_blocks * facts.f_frsize,
        "free_inodes": facts.f_favail, "total_inodes": facts.f_files,
    }  # fmt: skip
