"""Removal of a run directory: its marks are removed last.

A partly removed directory still has its marks.  So a daemon that finds it without a row in the registry does
not recover it as a run.
"""

import os
from contextlib import suppress
from pathlib import Path

from mosaicd import crash_points
from mosaicd.protocol import rundir
from mosaicd.safe_files import Removed, remove_tree


def remove_run_dir(path: Path) -> Removed:
    """Remove a run directory and all below it; return what was removed and what failed.

    If an entry cannot be removed, the other entries are removed, and the marks stay.
    """
    removed = Removed()
    if path.is_symlink():
        return remove_tree(path)
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return removed
    except OSError as error:
        removed.add_failure(error)
        return removed
    for name in names:
        if name not in rundir.MARKS:
            remove_tree(path / name, removed)
    return removed if removed.failed else remove_tree(path, removed)


def remove_pruned(path: Path) -> str | None:
    """Remove the directory of a pruned run, its spec first; return why a part of it remains, else None."""
    with suppress(OSError):
        (path / rundir.SPEC).unlink(missing_ok=True)  # without spec.json, the rest is not recovered as a run
        crash_points.reach("prune.removing")
    why = "another process creates it again"
    for _ in range(2):  # another process may have added an entry meanwhile
        error = remove_run_dir(path).error
        if error is not None:
            why = f"{error.filename}: {error.strerror}"
        if not os.path.lexists(path):
            return None
    return why
