"""Find the processes that belong to a run or to a state directory, in /proc."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from mosaicd.protocol import rundir
from mosaicd.shim.process_table import InExec, environment_of

PROC = Path("/proc")


def all_pids() -> Iterator[int]:
    """Yield the pid of every process."""
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def children(pid: int) -> list[int]:
    """Return the children of a process's first thread; none if the process has ended."""
    try:
        return [int(word) for word in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    """Send SIGKILL to a process, if it exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pids_with_marker(*run_ids: str) -> list[int]:
    """Return the living processes that carry the marker of one of the runs."""
    markers = {f"{rundir.MARKER}={run_id}".encode() for run_id in run_ids}
    found = []
    for pid in all_pids():
        with contextlib.suppress(InExec):
            if not markers.isdisjoint(environment_of(pid).split(b"\0")):
                found.append(pid)
    return found


def pids_with_path(path: Path) -> list[int]:
    """Return the other processes that have a path in their arguments or their environment."""
    found = []
    for pid in all_pids():
        with contextlib.suppress(OSError):
            words = (PROC / f"{pid}/cmdline").read_bytes() + (PROC / f"{pid}/environ").read_bytes()
            if str(path).encode() in words and pid != os.getpid():
                found.append(pid)
    return found


def shims(state_dir: Path, but: int | None = None) -> list[int]:
    """Return the shims of a state directory: they hold one of its attempt directories open.

    `but` is the daemon, which opens these directories too; a worker has the marker in its environment.
    """
    root = f"{state_dir / 'runs'}/"
    return [pid for pid in all_pids() if pid != but and _holds_attempt(pid, root) and not _has_marker(pid)]


def _holds_attempt(pid: int, root: str) -> bool:
    try:
        links = list((PROC / f"{pid}/fd").iterdir())
    except OSError:
        return False
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile; a shim keeps its directory open all its life
            target = os.readlink(link)
            if target.startswith(root) and rundir.ATTEMPT_PREFIX in target:
                return True
    return False


def _has_marker(pid: int) -> bool:
    try:
        return rundir.MARKER.encode() in (PROC / f"{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True  # ended meanwhile: no shim
    except OSError:
        return False
