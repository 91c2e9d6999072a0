"""Processes that carry a run's marker, as /proc shows them to this user.

Note: the marker alone is not enough.  A daemon with another state directory has runs of
its own, so only processes whose run directory lies below the given one count.
"""

import os
from collections.abc import Iterator

from mosaicd.protocol import Json, rundir


def marked(state_dir: str, proc: str = "/proc") -> list[Json]:
    """Return {pid, run_id, command} of every living process of a run of this state directory."""
    runs = os.path.realpath(os.path.join(state_dir, "runs")) + os.sep
    return [found for pid in _pids(proc) if (found := _of_run(proc, pid, runs)) is not None]


def _pids(proc: str) -> Iterator[str]:
    with os.scandir(proc) as entries:
        yield from (entry.name for entry in entries if entry.name.isdigit())


def _of_run(proc: str, pid: str, runs: str) -> Json | None:
    try:
        with open(f"{proc}/{pid}/environ", "rb") as file:
            environment = file.read()
        if rundir.MARKER.encode() not in environment:
            return None
        names = dict(item.partition(b"=")[::2] for item in environment.split(b"\0") if item)
        run_id = names.get(rundir.MARKER.encode(), b"").decode(errors="replace")
        where = os.path.realpath(names.get(b"MOSAIC_RUN_DIR", b"").decode(errors="surrogateescape"))
        if not where.startswith(runs + run_id + os.sep):
            return None
        with open(f"{proc}/{pid}/cmdline", "rb") as file:
            command = file.read(200).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # it belongs to another user, or has ended
        return None
    return {"pid": int(pid), "run_id": run_id, "command": command}
