"""The limits of this process, above all of open descriptors: the daemon raises that one, its runs do not.

Each connection takes a descriptor, and the usual soft limit is 1,024.  Without a soft limit of its submitter,
a run keeps the one that the daemon was started with, because select() fails in a program with descriptors of
1,024 and more: the launcher sets that limit before it forks a shim, and the daemon sets it before it becomes
another program.
"""

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mosaicd.protocol.process_limits import cut_names, limit_number


def set_soft_limit(limit: int) -> None:
    """Set the soft limit of this process, at most to its hard limit; descriptors that are open stay open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # above the maximum of the kernel: the limit stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def raise_soft_limit() -> None:
    """Set the soft limit of this process to its hard limit."""
    set_soft_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def cut_attributes(process: Mapping[str, Any]) -> list[str]:
    """Return the names in a checked `process` that are above what this daemon may give to its runs."""
    asked = {name: limit_number(limit) for name, limit in process.get("limits", {}).items()}
    hard = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1] for name in asked}
    outside = set(process.get("affinity", ())) - os.sched_getaffinity(0)
    return cut_names(asked, hard) + (["affinity"] if outside else [])
