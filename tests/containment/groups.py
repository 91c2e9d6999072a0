"""Control groups as a test sees them, read without the code under test where that matters."""

from pathlib import Path

from mosaicd.shim import cgroup
from tests.harness import processes

#: As many processes as it gets, for ever.
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
    """Return where the unified hierarchy is mounted."""
    both = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    return next(path for path in both if (path / "cgroup.controllers").exists())


def group_of(pid: int, controller: str = "") -> str:
    """Return the path of a process's group in a hierarchy, as the kernel says it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    raise AssertionError(f"{pid} is in no group of {controller or 'version 2'}")


def hierarchies() -> set[str]:
    """Return where groups of ours can be: our own group in each hierarchy, and all of version 2."""
    return {*cgroup.own_hierarchies().values(), str(version_2())}


def run_cgroups_of(run_id: str) -> list[str]:
    """Return the control groups of a run in all hierarchies."""
    found = []
    for directory in hierarchies():
        found += [path for path in cgroup.tree(directory) if Path(path).name.startswith(f"run-{run_id}-")]
    return sorted(set(found))


def living(pids: list[int]) -> list[int]:
    """Return those that live; zombies do not."""
    return [pid for pid in pids if processes.is_alive(pid)]
