"""What a run has of the process of its caller besides variables: umask, nice, soft limits, CPU affinity."""

import os
import resource
from contextlib import suppress

from mosaicd.protocol import Json
from mosaicd.protocol.process_limits import LIMIT_NAMES, UNLIMITED

#: A larger number is no limit in practice, and not exact in every JSON reader.
_MOST = 2**53 - 1


def capture_process() -> Json:
    """Return the attributes of this process, read without a change of them.

    A negative nice value is left out, and so is an affinity that contains all CPUs.
    """
    found: Json = {"limits": _soft_limits()}
    umask = _umask()
    if umask is not None:
        found["umask"] = umask
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice >= 0:
        found["nice"] = nice
    cpus = os.sched_getaffinity(0)
    if len(cpus) < (os.cpu_count() or 0):
        found["affinity"] = sorted(cpus)
    return found


def cut_line(run: Json) -> str:
    """Return the line about limits that the daemon has cut; "" if there are none."""
    names = run.get("cut_attributes")
    if not names:
        return ""
    return (
        f"mosaicctl: the limits of the daemon are lower than yours, so the run has them: {', '.join(names)}\n"
    )


def _soft_limits() -> dict[str, int | str]:
    limits: dict[str, int | str] = {}
    for name in LIMIT_NAMES:
        soft = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[0]
        limits[name] = soft if 0 <= soft <= _MOST else UNLIMITED
    return limits


def _umask() -> int | None:
    """Return the umask; os.umask would change it for a moment."""
    with suppress(OSError, ValueError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return None
