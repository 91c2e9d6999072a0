"""Control groups as files: the hierarchies of this process, and reading and writing one directory.

Version 2 has one hierarchy, version 1 has one for each controller, and a hybrid machine has both.  `V2` and
the names of version-1 controllers are the keys in this module.  No function here sends a signal.
Note: an unreadable file is not an empty one, and a directory that is being removed fails with ENODEV.
"""

import os
import time
from collections.abc import Iterator

V2 = "v2"
V1_CONTROLLERS = ("memory", "pids", "cpu", "freezer")
PROCS = "cgroup.procs"

_CHUNK_BYTES = 1 << 16


def hierarchies(mounts: str, membership: str) -> dict[str, str]:
    """Return hierarchy -> directory of the process, from /proc/self/mountinfo and /proc/self/cgroup."""
    paths = _group_paths(membership)
    result: dict[str, str] = {}
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        kind, _, options = [*tail.split(), "", "", ""][:3]
        if kind == "cgroup2":
            names = [V2]
        elif kind == "cgroup":
            names = [name for name in V1_CONTROLLERS if name in options.split(",")]
        else:
            continue
        root, mountpoint = fields[3], fields[4].replace("\\040", " ")
        for name in names:
            group_path = paths.get(name)
            relative = None if group_path is None else _below(group_path, root)
            if relative is not None:
                result.setdefault(name, os.path.join(mountpoint, relative).rstrip("/"))
    return result


def own_hierarchies() -> dict[str, str]:
    """Return hierarchy -> directory of this process; empty without control groups."""
    try:
        with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as membership:
            return hierarchies(mounts.read(), membership.read())
    except OSError:
        return {}


def _group_paths(membership: str) -> dict[str, str]:
    paths = {}
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        for name in [V2] if number == "0" and not controllers else controllers.split(","):
            paths[name] = path
    return paths


def _below(path: str, root: str) -> str | None:
    """Return `path` relative to the mounted directory `root`; None if it is not below it."""
    if path.startswith("/.."):  # outside of this control-group namespace
        return None
    if root == "/":
        return path.lstrip("/")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :].lstrip("/")
    return None


def read(directory: str, name: str) -> str | None:
    """Return the content of a file of the directory; None if it cannot be read."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = b""
        while chunk := os.read(fd, _CHUNK_BYTES):
            content += chunk
    except OSError:
        return None  # the directory was removed meanwhile
    finally:
        os.close(fd)
    return content.decode()


def write(directory: str, name: str, text: str) -> None:
    """Write one file of the directory in one call; raise OSError if the kernel refuses."""
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def try_write(directory: str, name: str, text: str) -> bool:
    """Write one file of the directory; return whether that was possible."""
    try:
        write(directory, name, text)
    except OSError:
        return False
    return True


def can_write(directory: str, name: str) -> bool:
    """Return whether the directory has the file, and this process may write it."""
    return os.access(f"{directory}/{name}", os.W_OK)


def keyed(directory: str, name: str) -> dict[str, int]:
    """Return the numbers in a file of `key number` lines; empty if it cannot be read."""
    rows = (line.split() for line in (read(directory, name) or "").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def number(directory: str, name: str) -> int | None:
    """Return the number in a file; None for `max`, and if it cannot be read."""
    text = (read(directory, name) or "").strip()
    return int(text) if text.isdecimal() else None


def tree(directory: str) -> Iterator[str]:
    """Yield all directories below, each after its children, and `directory` last: the order of a removal."""
    try:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        below = []
    for path in below:
        yield from tree(path)
    yield directory


def pids_here(directory: str) -> set[int]:
    """Return the pids in the directory itself."""
    return {int(word) for word in (read(directory, PROCS) or "").split()}


def pids(directory: str) -> set[int]:
    """Return the pids in the directory and below it, without zombies in version 2."""
    result: set[int] = set()
    for path in tree(directory):
        result.update(pids_here(path))
    result.discard(0)  # 0 means a process outside of this pid namespace
    return result


def is_populated(directory: str) -> bool:
    """Return whether a process is in the directory or below it; False if the directory does not exist."""
    events = keyed(directory, "cgroup.events")
    return bool(events["populated"]) if "populated" in events else bool(pids(directory))


def remove(directory: str) -> bool:
    """Remove the directory and all below it; return whether that worked.  It fails if it has a process."""
    for path in tree(directory):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            return False
    return True


def age_s(directory: str) -> float:
    """Return the age of the directory in seconds; 0 if it does not exist."""
    try:
        return max(0.0, time.time() - os.stat(directory).st_ctime)
    except OSError:
        return 0.0


def is_root(directory: str) -> bool:
    """Return whether the directory is the root of the machine's version-2 hierarchy.

    The root of a control-group namespace (in a container) is not.  Only the root may have both processes and
    children with limits.
    """
    return not os.path.exists(f"{directory}/cgroup.type")


def enable(directory: str, controllers: frozenset[str]) -> frozenset[str]:
    """Enable the controllers for the children of a version-2 directory; return those that are enabled.

    If a process is in the directory itself, nothing is enabled: the kernel would refuse memory but enable cpu
    and pids, which makes the directory a group for threads, below which no process can be put.
    """
    missing = controllers - _enabled(directory)
    if missing and (is_root(directory) or not pids_here(directory)):
        # Memory is first, because the kernel may refuse it.
        for name in sorted(missing, key=lambda name: (name != "memory", name)):
            try_write(directory, "cgroup.subtree_control", f"+{name}")
    return controllers & _enabled(directory)


def _enabled(directory: str) -> frozenset[str]:
    return frozenset((read(directory, "cgroup.subtree_control") or "").split())
