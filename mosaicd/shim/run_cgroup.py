"""The control groups of one attempt: its own subtree, made before the worker and removed after it.

    <parent>/run-<run id>-<attempt>/     version 2: contains no process itself
        shim/                            the shim: no limit applies, and a kill of the run does not reach it
        run/                             the worker and its descendants; memory and tasks are limited here,
                                         the share of the processors is a property of the whole subtree
    <v1 controller>/.../run-<run id>-<attempt>/   version 1: the worker's process tree only, for limits

Memory and tasks are limited on `run/`, not above it: if a run of many small processes is short of memory,
the kernel kills the largest process first, which may be the shim, and exit.json would not be written.  For
the fork, the shim enters `run/` with two writes, so the worker starts there.  Entering between fork and exec
needs code in the child; a move after the fork misses what the worker forks before it.
If the shim cannot leave `run/` after the fork, it kills the worker: the limit would act on the shim, too.
Version 1 without version 2 holds the tree with its freezer.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from mosaicd.protocol.records.attempt import OutOfMemory
from mosaicd.protocol.records.orders import Containment
from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2

PROCESS_GROUP = "process-group"
_KINDS = {V2: "cgroup-v2", "freezer": "cgroup-v1"}
_SHIM, _RUN = "shim", "run"
_CPU_WEIGHT, _CPU_WEIGHTS = 100, (1, 10_000)
_CPU_SHARES = 1024
_LAST_STEP_BYTES = 1 << 16  # largest request for memory at which the kernel kills a process
_REMOVED_ERRORS = (errno.ENOENT, errno.ENODEV)
_TRIES = 5
_PREFIX = "run-"


class CgroupRoot(NamedTuple):
    """Where run control groups are made: the launcher finds it once.

    `parents`: hierarchy -> the directory in which the groups are made.  `own`: hierarchy -> the group of the
    launcher, to which a shim returns after the fork.  `controllers`: those that version 2 can use here.
    `earlier`: directories of earlier launchers that may still have groups of version 2.
    """

    parents: Mapping[str, str] = {}
    own: Mapping[str, str] = {}
    controllers: frozenset[str] = frozenset()
    earlier: tuple[str, ...] = ()

    @property
    def v2_parents(self) -> list[str]:
        """Return all directories that may have groups of version 2, the current one first."""
        return [*([self.parents[V2]] if V2 in self.parents else []), *self.earlier]

    @property
    def kind(self) -> str:
        """Return what holds a run here: cgroup-v2, cgroup-v1 or process-group."""
        return next((kind for name, kind in _KINDS.items() if name in self.parents), PROCESS_GROUP)

    @property
    def enforces(self) -> list[str]:
        """Return the names of the limits that can be set here."""
        available = self.controllers | self.parents.keys()
        return [name for name in ("memory", "pids", "cpu") if name in available]


class CgroupLimits(NamedTuple):
    """The requested limits of a run, None for no limit; `is_required`: no start without control groups."""

    memory_bytes: int | None = None
    tasks: int | None = None
    cpus: int = 1
    is_required: bool = False


def limits_of(containment: Containment, cpus: int | None) -> CgroupLimits:
    """Return the limits that an order requests."""
    return CgroupLimits(containment.memory_bytes, containment.tasks, cpus or 1, containment.required)


def name_of(run_id: str, attempt: int) -> str:
    """Return the name of an attempt's directories."""
    return f"{_PREFIX}{run_id}-{attempt}"


def run_id_of(name: str) -> str | None:
    """Return the run id in the name of an attempt's directory; None for another name."""
    head, _, attempt = name.rpartition("-")
    return head[len(_PREFIX) :] if head.startswith(_PREFIX) and attempt.isdecimal() else None


class RunCgroup:
    """The control groups of one attempt; there may be none, then `kind` is process-group."""

    def __init__(
        self, outer: str | None, v1: Mapping[str, str], back: Mapping[str, str],
        limits: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Take the subtree `outer` of version 2 and the directories `v1` (controller -> directory).

        `back`: hierarchy -> the group to which the shim returns after the fork.
        `limits`: those that are in force: memory_bytes, tasks, cpu_weight.
        """
        self._outer = outer
        self.run_dir = f"{outer}/{_RUN}" if outer else None
        self._v1 = dict(v1)
        self._back = back
        self.limits = dict(limits or {})

    @property
    def kind(self) -> str:
        """Return what holds the process tree: cgroup-v2, cgroup-v1 or process-group."""
        return _KINDS[V2] if self._outer else _KINDS["freezer"] if self._freezer else PROCESS_GROUP

    @property
    def _freezer(self) -> str | None:
        return self._v1.get("freezer") if self._outer is None else None

    @property
    def _tree_dir(self) -> str | None:
        """Return the directory that holds exactly the worker's process tree."""
        return self.run_dir or self._freezer

    # ------------------------------------------------------------------ its processes

    def pids(self) -> set[int]:
        """Return the pids of the process tree in the groups; empty without groups."""
        return cgroup.pids(self._tree_dir) if self._tree_dir else set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this process into the worker's groups for a fork, and back; raise OSError if a move fails.

        Note: after a failed move back, this process is in a group of the worker, and so is the worker.
        """
        moves = dict(self._v1)
        back = dict(self._back)
        if self._outer and self.run_dir:
            moves[V2], back[V2] = self.run_dir, f"{self._outer}/{_SHIM}"
        try:
            for directory in moves.values():
                cgroup.write(directory, cgroup.PROCS, "0")
            yield
        finally:
            _move_to(back[name] for name in moves)

    # ------------------------------------------------------------------ freeze and thaw

    @property
    def can_freeze(self) -> bool:
        """Return whether the kernel can freeze the whole process tree at one instant."""
        return self._tree_dir is not None

    def freeze(self) -> None:
        """Order the kernel to freeze the process tree; `is_frozen` returns whether that is done."""
        self._set_frozen("1", "FROZEN")

    def thaw(self) -> None:
        """Order the kernel to thaw the process tree."""
        self._set_frozen("0", "THAWED")

    def _set_frozen(self, v2: str, v1: str) -> None:
        if self.run_dir:
            cgroup.try_write(self.run_dir, "cgroup.freeze", v2)
        elif self._freezer:
            cgroup.try_write(self._freezer, "freezer.state", v1)

    def is_frozen(self) -> bool:
        """Return whether all processes in the control group are frozen."""
        if self.run_dir:
            return cgroup.keyed(self.run_dir, "cgroup.events").get("frozen") == 1
        return bool(self._freezer) and cgroup.read(str(self._freezer), "freezer.state") == "FROZEN\n"

    # ------------------------------------------------------------------ evidence and removal

    def oom(self) -> OutOfMemory | None:
        """Return the kernel's facts on processes that it killed for lack of memory; None if it killed none.

        `limit_bytes` is set only if the limit of the run was reached: the machine, or a container, may
        also be short of memory.
        """
        if (memory := self._v1.get("memory")) is not None:
            victims = cgroup.keyed(memory, "memory.oom_control").get("oom_kill", 0)
            names = {
                "limit_bytes": "memory.limit_in_bytes", "peak_bytes": "memory.max_usage_in_bytes",
                "refusals": "memory.failcnt",
            }  # fmt: skip
            evidence = _numbers(memory, names)
            with_swap = cgroup.number(memory, "memory.memsw.max_usage_in_bytes") or 0
            peak = max(with_swap, evidence.get("peak_bytes", 0))
            # Not from the count of refusals: it stays 0 if the limit with swap is reached first.
            is_own = peak > evidence.get("limit_bytes", 0) - _LAST_STEP_BYTES
        elif self.run_dir:
            events = cgroup.keyed(self.run_dir, "memory.events")
            victims = events.get("oom_kill", 0)
            evidence = _numbers(self.run_dir, {"limit_bytes": "memory.max", "peak_bytes": "memory.peak"})
            is_own = events.get("oom", 0) > 0  # does not count limits of groups above
        else:
            return None
        if "memory_bytes" not in self.limits or not is_own:
            evidence.pop("limit_bytes", None)
        return OutOfMemory(victims=victims, **evidence) if victims else None

    def remove(self) -> None:
        """Remove the groups that are empty; the launcher removes the shim's own group."""
        for directory in (*self._v1.values(), *([self.run_dir] if self.run_dir else [])):
            cgroup.remove(directory)


def _move_to(directories: Iterable[str]) -> None:
    """Move this process into all of these groups; then raise the first OSError, if a move failed."""
    first: OSError | None = None
    for directory in directories:
        try:
            cgroup.write(directory, cgroup.PROCS, "0")
        except OSError as error:
            first = first or error
    if first is not None:
        raise first


def _numbers(directory: str, names: Mapping[str, str]) -> dict[str, int]:
    numbers = {key: cgroup.number(directory, name) for key, name in names.items()}
    return {key: value for key, value in numbers.items() if value is not None}


def make(root: CgroupRoot, run_id: str, attempt: int, limits: CgroupLimits) -> RunCgroup:
    """Make an attempt's groups and enter the shim's own.

    Raises OSError if they are required and cannot be made.
    Groups and limits that are not available are left out: see `kind` and `limits` of the result.
    """
    name = name_of(run_id, attempt)
    outer = f"{root.parents[V2]}/{name}" if V2 in root.parents else None
    if outer and not _try_enter(outer, root):  # first: without it the launcher would remove the empty others
        outer = None
    v1 = {}
    for controller in root.parents.keys() - {V2}:
        directory = f"{root.parents[controller]}/{name}"
        if (controller != "freezer" or V2 not in root.parents) and _try_make(directory):
            v1[controller] = directory
    if limits.is_required and outer is None and "freezer" not in v1:
        raise OSError(errno.ENOTSUP, "containment is set to cgroup, and no control group can be made here")
    in_force = _limit(outer, v1, limits)
    for controller in v1.keys() - _needed(in_force):
        cgroup.remove(v1.pop(controller))
    return RunCgroup(outer, v1, root.own, in_force)


def find(root: CgroupRoot, run_id: str, attempt: int) -> RunCgroup:
    """Return the groups that an earlier shim of the attempt made, as far as they exist."""
    name = name_of(run_id, attempt)
    outers = [f"{parent}/{name}" for parent in root.v2_parents]
    outer = next((path for path in outers if os.path.isdir(f"{path}/{_RUN}")), None)
    v1 = {controller: f"{parent}/{name}" for controller, parent in root.parents.items() if controller != V2}
    return RunCgroup(outer, {c: path for c, path in v1.items() if os.path.isdir(path)}, root.own)


def _try_make(directory: str) -> bool:
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
    except OSError:
        return False
    return True


def _try_enter(outer: str, root: CgroupRoot) -> bool:
    """Make the subtree of version 2 and move into shim/; repeat that if the launcher removes it meanwhile."""
    for _ in range(_TRIES):
        try:
            os.makedirs(f"{outer}/{_SHIM}", 0o755, exist_ok=True)
            cgroup.write(f"{outer}/{_SHIM}", cgroup.PROCS, "0")
            os.makedirs(f"{outer}/{_RUN}", 0o755, exist_ok=True)
        except OSError as error:
            if error.errno in _REMOVED_ERRORS:
                continue
            return False
        cgroup.enable(os.path.dirname(outer), root.controllers)
        cgroup.enable(outer, root.controllers)
        return cgroup.can_write(f"{outer}/{_RUN}", "cgroup.freeze")
    return False


def _limit(outer: str | None, v1: Mapping[str, str], limits: CgroupLimits) -> dict[str, int]:
    """Set each limit in version 2 or, if that fails, in version 1; return the limits that are in force."""
    in_force: dict[str, int] = {}
    run_dir = f"{outer}/{_RUN}" if outer else None
    if limits.memory_bytes is not None and _try_limit_memory(run_dir, v1, limits.memory_bytes):
        in_force["memory_bytes"] = limits.memory_bytes
    if limits.tasks is not None and (
        _try_set(run_dir, "pids.max", limits.tasks) or _try_set(v1.get("pids"), "pids.max", limits.tasks)
    ):
        in_force["tasks"] = limits.tasks
    low, high = _CPU_WEIGHTS
    weight = min(high, max(low, _CPU_WEIGHT * limits.cpus))
    # A weight counts among siblings: the siblings of `outer` are the other runs, that of `run/` is the shim.
    shares = _CPU_SHARES * limits.cpus
    if _try_set(outer, "cpu.weight", weight) or _try_set(v1.get("cpu"), "cpu.shares", shares):
        in_force["cpu_weight"] = weight
    return in_force


def _try_limit_memory(run_dir: str | None, v1: Mapping[str, str], limit_bytes: int) -> bool:
    if _try_set(run_dir, "memory.max", limit_bytes):
        _try_set(run_dir, "memory.swap.max", 0)  # with swap, the run would slow the whole machine down
        return True
    memory = v1.get("memory")
    if not _try_set(memory, "memory.limit_in_bytes", limit_bytes):
        return False
    _try_set(memory, "memory.memsw.limit_in_bytes", limit_bytes)
    return True


def _try_set(directory: str | None, name: str, value: int) -> bool:
    if directory is None or not cgroup.can_write(directory, name):
        return False
    return cgroup.try_write(directory, name, str(value))


def _needed(limits: Mapping[str, int]) -> set[str]:
    """Return the controllers of version 1 to use: memory also without a limit, for its evidence."""
    names = {"tasks": "pids", "cpu_weight": "cpu"}
    return {"freezer", "memory"} | {names[limit] for limit in limits if limit in names}
