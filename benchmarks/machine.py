"""Describe the machine, because figures depend on it."""

import os
import platform
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Processor"):
            return value.strip()
    return platform.machine()


def _memory_gib() -> float:
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that holds `path`."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        mount, filesystem = line.split()[1:3]
        mountpoint = mount.replace("\\040", " ")
        if len(mountpoint) >= len(best) and (path == Path(mountpoint) or Path(mountpoint) in path.parents):
            best, kind = mountpoint, filesystem
    return kind


def fsync_ms(directory: Path) -> float:
    """Return the median time of an append with fsync; a run needs a dozen of them."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(50):
            began = time.monotonic()
            file.write(b"x" * 512)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.monotonic() - began)
    return round(1000 * median(took), 3)


def facts(directory: Path) -> dict[str, str | int | float]:
    """Return a description of this machine and its load."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gib": _memory_gib(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "filesystem": filesystem_of(directory.resolve()),
        "fsync_ms": fsync_ms(directory),
        "load_1min": round(os.getloadavg()[0], 2),
    }
