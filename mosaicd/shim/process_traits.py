"""Properties of a process for the order of signals: whether it is a shell or a filter, and what it ignores.

Read only.  A shell and a filter are known by the name of their program, or by their own name: a script
`train.sh` has the program `bash`, and a `sh` of busybox has the program `busybox`.
"""

import os

from mosaicd.procfs import Process
from mosaicd.shim.signal_order import Traits

#: Version numbers at the end of a name are left out: `ksh93` is `ksh`, and `zsh-5.9` is `zsh`.
SHELLS = frozenset(
    {"sh", "bash", "rbash", "dash", "ash", "busybox", "zsh", "ksh", "mksh", "lksh", "pdksh", "yash", "fish",
     "csh", "tcsh"}
)  # fmt: skip
#: Programs that end when their input ends, and that write what they have read so far.
FILTERS = frozenset(
    {"tee", "cat", "ts", "grep", "egrep", "fgrep", "sed", "awk", "gawk", "mawk", "gzip", "pigz", "bzip2",
     "xz", "zstd", "lz4", "logger", "systemd-cat", "rotatelogs", "cronolog", "multilog", "svlogd"}
)  # fmt: skip

_DELETED = " (deleted)"


def traits_of(process: Process) -> Traits:
    """Return the traits of a process; without any if it has ended."""
    names = _names(process.pid)
    return Traits(
        is_shell=any(_without_version(name) in SHELLS for name in names),
        is_filter=not FILTERS.isdisjoint(names) and _reads_from_pipe(process.pid),
        ignored=_ignored(process.pid),
    )


def _names(pid: int) -> list[str]:
    """Return the name of the program's file and of the process, as far as they can be read."""
    return [name for name in (_program(pid), _read(pid, "comm").rstrip("\n")) if name]


def _program(pid: int) -> str:
    """Return the name of the program's file; empty for another user's process."""
    return os.path.basename(_link(pid, "exe").removesuffix(_DELETED))


def _without_version(name: str) -> str:
    return name.rstrip("0123456789.-") or name


def _reads_from_pipe(pid: int) -> bool:
    return _link(pid, "fd/0").startswith(("pipe:", "socket:"))  # some shells connect commands by sockets


def _ignored(pid: int) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith("SigIgn:"):
            return int(line.split()[1], 16)
    return 0


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall().decode(errors="replace")
    except OSError:
        return ""
