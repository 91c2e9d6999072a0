"""The processes of runs, found in /proc by the marker in their environment.

Note: the marker alone is not enough.  Another daemon with another state directory also has runs, so a process
counts only if its run directory is in the given state directory.
"""

import os
from collections.abc import Iterator

from mosaicd.protocol import Json, rundir


def marked_processes(state_dir: str, proc: str = "/proc") -> list[Json]:
    """Return {pid, run_id, command} of every live process of a run of this state directory."""
    runs = os.path.realpath(os.path.join(state_dir, "runs")) + os.sep
    return [process for pid in _process_ids(proc) if (process := _run_process(proc, pid, runs)) is not None]


def _process_ids(proc: str) -> Iterator[str]:
    with os.scandir(proc) as entries:
        yield from (entry.name for entry in entries if entry.name.isdigit())


def _run_process(proc: str, pid: str, runs: str) -> Json | None:
    """Return {pid, run_id, command} if the process belongs to a run in the directory `runs`, else None."""
    try:
        with open(f"{proc}/{pid}/environ", "rb") as file:
            environment = file.read()
        if rundir.MARKER.encode() not in environment:
            return None
        variables = dict(item.partition(b"=")[::2] for item in environment.split(b"\0") if item)
        run_id = variables.get(rundir.MARKER.encode(), b"").decode(errors="replace")
        run_dir = os.path.realpath(variables.get(b"MOSAIC_RUN_DIR", b"").decode(errors="surrogateescape"))
        if not run_dir.startswith(runs + run_id + os.sep):
            return None
        with open(f"{proc}/{pid}/cmdline", "rb") as file:
            command = file.read(200).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # the process belongs to another user, or has ended
        return None
    return {"pid": int(pid), "run_id": run_id, "command": command}
