"""Read the control groups of runs, mostly without the code under test."""

from pathlib import Path

from mosaicd.shim import cgroup
from tests.harness import processes

#: Forks as many processes as it can, forever.
BOMB = """
import os, time
print("up", flush=True)
while True:
    time.sleep(0.1)
    try:
        os.fork()
    except OSError:
        pass
"""


def version_2() -> Path:
    """Return the mount point of the unified hierarchy."""
    mountpoints = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    return next(path for path in mountpoints if (path / "cgroup.controllers").exists())


def group_of(pid: int, controller: str = "") -> str:
    """Return the path of a process's group in a hierarchy, as the kernel reports it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    raise AssertionError(f"{pid} is in no group of {controller or 'version 2'}")


def hierarchies() -> set[str]:
    """Return the directories that can contain groups of runs: the own group in each hierarchy, and all of
    version 2."""
    return {*cgroup.own_hierarchies().values(), str(version_2())}


def run_cgroups_of(run_id: str) -> list[str]:
    """Return the control groups of a run in all hierarchies."""
    found = []
    for directory in hierarchies():
        found += [path for path in cgroup.tree(directory) if Path(path).name.startswith(f"run-{run_id}-")]
    return sorted(set(found))


def living(pids: list[int]) -> list[int]:
    """Return the pids that are alive; zombies are not."""
    return [pid for pid in pids if processes.is_alive(pid)]
