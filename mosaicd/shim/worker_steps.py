"""The child's side of the start of a worker: the steps between the fork and the exec, as a table.

All of this is set in the child and never in the shim, whose files, limits and signals stay its own.  A step
raises OSError if it fails.
"""

import os
import resource
import signal
from collections.abc import Callable
from typing import NamedTuple

from mosaicd.protocol.process_limits import lower
from mosaicd.protocol.records.orders import ProcessAttributes

DIRECTORY = "working directory"

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Plan(NamedTuple):
    """What the child sets: directory, descriptors, and the attributes that its submitter has."""

    cwd: str
    stdin_fd: int
    stdout_fd: int
    stderr_fd: int
    control_fd: int | None
    error_fd: int
    process: ProcessAttributes


Step = tuple[str, Callable[[Plan], None]]


def _session(plan: Plan) -> None:
    """Lead a new session and process group."""
    del plan
    os.setsid()


def _descriptors(plan: Plan) -> None:
    """Use the three standard streams; of the other descriptors keep only the control channel."""
    os.dup2(plan.stdin_fd, _STDIN)
    os.dup2(plan.stdout_fd, _STDOUT)
    os.dup2(plan.stderr_fd, _STDERR)
    kept = {_STDIN, _STDOUT, _STDERR, plan.error_fd}
    if plan.control_fd is not None:
        os.set_inheritable(plan.control_fd, True)
        kept.add(plan.control_fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing, closed already


def _signals(plan: Plan) -> None:
    """Give every signal its default action and block none, whatever the daemon has inherited.

    A signal with a handler of the shim has its default action after the exec; an ignored one stays ignored.
    The two signals that the C library keeps for itself cannot be set.
    """
    del plan
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _directory(plan: Plan) -> None:
    os.chdir(plan.cwd)


def _umask(plan: Plan) -> None:
    if plan.process.umask is not None:
        os.umask(plan.process.umask)


def _nice(plan: Plan) -> None:
    """Take the submitter's niceness; a lower one than the shim's would need a privilege."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if plan.process.nice is not None and plan.process.nice > own:
        os.setpriority(os.PRIO_PROCESS, 0, plan.process.nice)


def _affinity(plan: Plan) -> None:
    """Take the submitter's CPUs, as far as the shim may use them."""
    cpus = os.sched_getaffinity(0).intersection(plan.process.affinity or ())
    if cpus:
        os.sched_setaffinity(0, cpus)


def _limits(plan: Plan) -> None:
    """Take the submitter's soft limits, cut at the hard limits."""
    for name, limit in (plan.process.limits or {}).items():
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(number)[1]
        resource.setrlimit(number, (lower(limit, hard), hard))


#: The limits are last: a low one may leave no memory or descriptors for the steps after it.
STEPS: tuple[Step, ...] = (
    ("session", _session),
    ("descriptors", _descriptors),
    ("signals", _signals),
    (DIRECTORY, _directory),
    ("umask", _umask),
    ("niceness", _nice),
    ("CPU affinity", _affinity),
    ("limits", _limits),
)
