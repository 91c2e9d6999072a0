"""The resource limits that a run has from its submitter, by the names of setrlimit(2) without RLIMIT_."""

from collections.abc import Mapping

LIMIT_NAMES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
UNLIMITED = "unlimited"
#: RLIM_INFINITY: as a number, no limit.
INFINITY = -1
MOST_CPUS = 1 << 16


def limit_number(limit: int | str) -> int:
    """Return a limit of a request as setrlimit takes it."""
    return INFINITY if isinstance(limit, str) else limit


def lower(limit: int, hard: int) -> int:
    """Return the lower of two limits."""
    if INFINITY in (limit, hard):
        return max(limit, hard)
    return min(limit, hard)


def cut_names(asked: Mapping[str, int], hard: Mapping[str, int]) -> list[str]:
    """Return the sorted names of limits that are above the hard limits."""
    return sorted(name for name, limit in asked.items() if name in hard and lower(limit, hard[name]) != limit)
