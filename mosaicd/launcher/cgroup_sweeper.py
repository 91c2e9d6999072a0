"""The control groups of all runs: the launcher reads which processes they contain, and removes them.

A shim removes the groups that it made, except its own, in which it runs.  The launcher removes that group and
the groups of killed shims: after it has reaped a shim, after it has found a process tree empty, at its start
and at its end.
"""

import os
from collections.abc import Iterator

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import CgroupRoot, run_id_of

#: A new group of version 1 is empty until its worker is forked, which takes less than this.  A shim of the
#: same attempt may have ended just now: an order may be repeated, and then another shim makes its groups.
_NEW_S = 5.0


class CgroupSweeper:
    """Reading and removing the run control groups below a root; no state is kept between calls."""

    def __init__(self, root: CgroupRoot) -> None:
        self.root = root
        self._v2 = root.v2_parents
        self._v1 = [parent for name, parent in root.parents.items() if name != V2]
        self._tracked = self._v2 or [parent for name, parent in root.parents.items() if name == "freezer"]

    def living(self) -> dict[str, set[int]]:
        """Return run id -> pids in its group, without the shim; 0 for processes of another pid namespace."""
        result: dict[str, set[int]] = {}
        for run_id, path in _run_cgroups(self._tracked):
            inner = f"{path}/run" if os.path.isdir(f"{path}/run") else path
            if path == inner and os.path.isdir(f"{path}/shim"):
                continue  # only the shim is in it, or a shim is making it
            if cgroup.is_populated(inner):
                result.setdefault(run_id, set()).update(cgroup.pids(inner) or {0})
        return result

    def remove(self, name: str) -> bool:
        """Remove the groups of the attempt with this directory name; return whether none remains.

        A group that was made just now stays: it may be empty because its worker is not forked yet.
        """
        return self._remove_empty(only=name)

    def sweep(self) -> None:
        """Remove the empty groups of all attempts."""
        self._remove_empty(only=None)

    def close(self) -> None:
        """Remove the parents that no run uses."""
        for parent in (*self._v1, *self._v2):
            try:
                os.rmdir(parent)
            except OSError:
                continue

    def _remove_empty(self, only: str | None) -> bool:
        all_removed = True
        for _, path in _run_cgroups(self._v2):
            if only in (None, os.path.basename(path)):
                all_removed &= not cgroup.is_populated(path) and cgroup.remove(path)
        for _, path in _run_cgroups(self._v1):
            if only in (None, os.path.basename(path)):
                # Version 1 lists zombies that are not reaped; they do not keep a group from being removed.
                all_removed &= not self._may_get_worker(path) and cgroup.remove(path)
        return all_removed

    def _may_get_worker(self, path: str) -> bool:
        """Return whether a shim may be about to fork its worker into a group of version 1.

        Such a group is new.  If version 2 is in use, its shim also has a group of version 2.
        """
        if cgroup.age_s(path) > _NEW_S:
            return False
        name = os.path.basename(path)
        return not self._v2 or any(os.path.isdir(f"{parent}/{name}") for parent in self._v2)


def _run_cgroups(parents: list[str]) -> Iterator[tuple[str, str]]:
    for parent in parents:
        try:
            names = os.listdir(parent)
        except OSError:
            continue  # systemd has removed it with its scope
        for name in names:
            run_id = run_id_of(name)
            if run_id is not None:
                yield run_id, f"{parent}/{name}"
