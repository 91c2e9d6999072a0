"""The soft limit of open descriptors: the daemon raises its own limit, and its runs keep the lower one.

Each connection takes a descriptor, and the usual soft limit is 1,024.  A run keeps the soft limit that the
daemon was started with, because select() fails in a program with descriptors of 1,024 and more: the launcher
sets that limit before it forks a shim, and the daemon sets it before it becomes another program.
"""

import resource
from contextlib import suppress


def set_soft_limit(limit: int) -> None:
    """Set the soft limit of this process, at most to its hard limit; descriptors that are open stay open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # above the maximum of the kernel: the limit stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def raise_soft_limit() -> None:
    """Set the soft limit of this process to its hard limit."""
    set_soft_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
