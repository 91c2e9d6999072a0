"""The cells of all runs as the launcher sees them: who is still in one, and what can be taken away.

The shim removes what it made but its own group, in which it is; that and what a killed shim left are
removed here: when a shim was reaped, after a tree was found empty, and at the start.
"""

import os
from collections.abc import Iterator

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import Site, run_id_of

#: A version-1 group stands empty between its making and the fork of its worker, but not for so long.  Also
#: where a shim of the attempt has just ended: an order may be repeated, and another may be at this point.
_SETTLED_S = 5.0


class Cells:
    """What lies in the homes of a site, read anew each time."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._v2 = [*([site.homes[V2]] if V2 in site.homes else []), *site.old]
        self._v1 = [home for name, home in site.homes.items() if name != V2]
        self._trackers = self._v2 or [home for name, home in site.homes.items() if name == "freezer"]

    def living(self) -> dict[str, set[int]]:
        """Return run id -> who lives in its cell, the shim left out; 0 for somebody whom we cannot see."""
        found: dict[str, set[int]] = {}
        for run_id, path in _cells(self._trackers):
            inner = f"{path}/run" if os.path.isdir(f"{path}/run") else path
            if path == inner and os.path.isdir(f"{path}/shim"):
                continue  # the shim alone is left in it, or it is being made
            if cgroup.is_populated(inner):
                found.setdefault(run_id, set()).update(cgroup.pids(inner) or {0})
        return found

    def remove(self, name: str) -> bool:
        """Remove what an attempt's cell has become; whether nothing of it is left.

        Of that attempt alone, and nothing that was made just now: it may stand empty because its worker is
        being made.
        """
        return self._swept(only=name)

    def sweep(self) -> None:
        """Remove what nobody is in, whoever made it."""
        self._swept(only=None)

    def close(self) -> None:
        """Remove the homes themselves, where no run is in them."""
        for home in (*self._v1, *self._v2):
            try:
                os.rmdir(home)
            except OSError:
                continue

    def _swept(self, only: str | None) -> bool:
        is_all = True
        for _, path in _cells(self._v2):
            if only in (None, os.path.basename(path)):
                is_all &= not cgroup.is_populated(path) and cgroup.remove(path)
        for _, path in _cells(self._v1):
            if only in (None, os.path.basename(path)):
                # Zombies that nobody reaps are listed in version 1, but do not keep a group.
                is_all &= self._is_settled(path) and cgroup.remove(path)
        return is_all

    def _is_settled(self, path: str) -> bool:
        """Whether a group of version 1 waits for no worker: its shim would be in version 2, or it is old."""
        if cgroup.age_s(path) > _SETTLED_S:
            return True
        name = os.path.basename(path)
        return bool(self._v2) and not any(os.path.isdir(f"{home}/{name}") for home in self._v2)


def _cells(homes: list[str]) -> Iterator[tuple[str, str]]:
    for home in homes:
        try:
            names = os.listdir(home)
        except OSError:
            continue  # gone with its scope
        for name in names:
            run_id = run_id_of(name)
            if run_id is not None:
                yield run_id, f"{home}/{name}"
