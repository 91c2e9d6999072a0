"""The control groups of one attempt: its own subtree, made before the worker and removed after it.

    <site>/run-<run id>-<attempt>/     version 2: nobody is in here
        shim/                          the shim, which no limit touches and no kill of the run reaches
        run/                           the worker is born here, and all that comes of it; memory and tasks
                                       are limited here, the share of the processors is the whole subtree's
    <v1 controller>/.../run-<run id>-<attempt>/   version 1: the worker's tree alone, for limits

Memory and tasks are limited on `run/`, not above it: a run of many small processes that is short of
memory would else have its shim killed first, as the largest, and with it the record of the end.  The
worker is born in `run/` because the shim goes there for the moment of the fork, which costs two writes;
entering between fork and exec would need code in the child, and a move afterwards would leave a window.
Version 1 without version 2 holds the tree with its freezer.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from mosaicd.protocol.records.attempt import OutOfMemory
from mosaicd.protocol.records.orders import Containment
from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2

PROCESS_GROUP = "process-group"
_WORDS = {V2: "cgroup-v2", "freezer": "cgroup-v1"}
_SHIM, _RUN = "shim", "run"
_CPU_WEIGHT, _CPU_WEIGHTS = 100, (1, 10_000)
_CPU_SHARES = 1024
_LAST_STEP_BYTES = 1 << 16  # nobody is killed for want of more than this at once
_NOT_THERE = (errno.ENOENT, errno.ENODEV)
_TRIES = 5
_PREFIX = "run-"


class Site(NamedTuple):
    """Where cells are made, found once by the launcher.  `homes`: hierarchy -> directory for cells.

    `own`: where this process is, for the way back; `old`: directories of earlier launchers that may
    still hold cells of version 2.
    """

    homes: Mapping[str, str] = {}
    own: Mapping[str, str] = {}
    controllers: frozenset[str] = frozenset()
    old: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What holds a run here."""
        return next((word for name, word in _WORDS.items() if name in self.homes), PROCESS_GROUP)

    @property
    def enforces(self) -> list[str]:
        """Which limits can be set here."""
        able = self.controllers | self.homes.keys()
        return [name for name in ("memory", "pids", "cpu") if name in able]


class Wanted(NamedTuple):
    """The limits of a run, None where it has none; `is_required`: no run without control groups."""

    memory_bytes: int | None = None
    tasks: int | None = None
    cpus: int = 1
    is_required: bool = False


def wanted(containment: Containment, cpus: int | None) -> Wanted:
    """Return what an order asks for."""
    return Wanted(containment.memory_bytes, containment.tasks, cpus or 1, containment.required)


def name_of(run_id: str, attempt: int) -> str:
    """Return the name of an attempt's directories."""
    return f"{_PREFIX}{run_id}-{attempt}"


def run_id_of(name: str) -> str | None:
    """Return whose cell a directory of this name is, None when it is none."""
    head, _, attempt = name.rpartition("-")
    return head[len(_PREFIX) :] if head.startswith(_PREFIX) and attempt.isdecimal() else None


class Cell:
    """One attempt's control groups; without any, it holds nothing and says so."""

    def __init__(
        self, outer: str | None, v1: Mapping[str, str], back: Mapping[str, str],
        limits: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """`outer`: the subtree in version 2; `v1`: controller -> directory; `back`: where the shim is.

        `limits`: those that are in force: memory_bytes, tasks, cpu_weight.
        """
        self._outer = outer
        self.run_dir = f"{outer}/{_RUN}" if outer else None
        self._v1 = dict(v1)
        self._back = back
        self.limits = dict(limits or {})

    @property
    def word(self) -> str:
        """What holds the tree: cgroup-v2, cgroup-v1 or process-group."""
        return _WORDS[V2] if self._outer else _WORDS["freezer"] if self._freezer else PROCESS_GROUP

    @property
    def _freezer(self) -> str | None:
        return self._v1.get("freezer") if self._outer is None else None

    @property
    def _held(self) -> str | None:
        """The directory that holds exactly the worker's tree."""
        return self.run_dir or self._freezer

    # ------------------------------------------------------------------ who is in it

    def pids(self) -> set[int]:
        """Return who lives in it."""
        return cgroup.pids(self._held) if self._held else set()

    @contextmanager
    def birth(self) -> Iterator[None]:
        """Be in the worker's groups for the moment of the fork; OSError when one cannot be entered."""
        moves = dict(self._v1)
        back = dict(self._back)
        if self._outer and self.run_dir:
            moves[V2], back[V2] = self.run_dir, f"{self._outer}/{_SHIM}"
        try:
            for directory in moves.values():
                cgroup.write(directory, cgroup.PROCS, "0")
            yield
        finally:
            for name in moves:
                cgroup.write(back[name], cgroup.PROCS, "0")

    # ------------------------------------------------------------------ standing still

    @property
    def can_freeze(self) -> bool:
        """Whether the kernel can hold the whole tree at one instant."""
        return self._held is not None

    def freeze(self) -> None:
        """Have everything in it stand still; `is_frozen` says when it does."""
        self._set_frozen("1", "FROZEN")

    def thaw(self) -> None:
        """Let everything in it go on."""
        self._set_frozen("0", "THAWED")

    def _set_frozen(self, v2: str, v1: str) -> None:
        if self.run_dir:
            cgroup.is_written(self.run_dir, "cgroup.freeze", v2)
        elif self._freezer:
            cgroup.is_written(self._freezer, "freezer.state", v1)

    def is_frozen(self) -> bool:
        """Whether everything in it stands still."""
        if self.run_dir:
            return cgroup.keyed(self.run_dir, "cgroup.events").get("frozen") == 1
        return bool(self._freezer) and cgroup.read(str(self._freezer), "freezer.state") == "FROZEN\n"

    # ------------------------------------------------------------------ evidence and end

    def oom(self) -> OutOfMemory | None:
        """Return what the kernel says of processes that it killed for want of memory; None when of none.

        With the limit only where that was it: the machine, or a container, can be short of memory as well.
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
            # No count to go by: that of refusals stays 0 where the limit with swap is the first to refuse.
            is_own = peak > evidence.get("limit_bytes", 0) - _LAST_STEP_BYTES
        elif self.run_dir:
            events = cgroup.keyed(self.run_dir, "memory.events")
            victims = events.get("oom_kill", 0)
            evidence = _numbers(self.run_dir, {"limit_bytes": "memory.max", "peak_bytes": "memory.peak"})
            is_own = events.get("oom", 0) > 0  # which counts no limit above
        else:
            return None
        if "memory_bytes" not in self.limits or not is_own:
            evidence.pop("limit_bytes", None)
        return OutOfMemory(victims=victims, **evidence) if victims else None

    def remove(self) -> None:
        """Remove what nobody is in any more; the shim's own group is the launcher's to remove."""
        for directory in (*self._v1.values(), *([self.run_dir] if self.run_dir else [])):
            cgroup.remove(directory)


def _numbers(directory: str, names: Mapping[str, str]) -> dict[str, int]:
    found = {key: cgroup.number(directory, name) for key, name in names.items()}
    return {key: value for key, value in found.items() if value is not None}


def make(site: Site, run_id: str, attempt: int, limits: Wanted) -> Cell:
    """Make an attempt's groups and enter the shim's own; OSError where they are required and cannot be.

    What cannot be had is left out: `word` and `limits` of the cell say what there is.
    """
    name = name_of(run_id, attempt)
    outer = f"{site.homes[V2]}/{name}" if V2 in site.homes else None
    if outer and not _is_settled(outer, site):  # first: who is in there keeps the others from being swept
        outer = None
    v1 = {}
    for controller in site.homes.keys() - {V2}:
        directory = f"{site.homes[controller]}/{name}"
        if (controller != "freezer" or V2 not in site.homes) and _is_made(directory):
            v1[controller] = directory
    if limits.is_required and outer is None and "freezer" not in v1:
        raise OSError(errno.ENOTSUP, "containment is set to cgroup, and no control group can be made here")
    held = _limit(outer, v1, limits)
    for controller in v1.keys() - _needed(held):
        cgroup.remove(v1.pop(controller))
    return Cell(outer, v1, site.own, held)


def find(site: Site, run_id: str, attempt: int) -> Cell:
    """Return the cell that an earlier shim made; one that holds nothing where there is none."""
    name = name_of(run_id, attempt)
    homes = [*([site.homes[V2]] if V2 in site.homes else []), *site.old]
    outer = next((f"{home}/{name}" for home in homes if os.path.isdir(f"{home}/{name}/{_RUN}")), None)
    v1 = {controller: f"{home}/{name}" for controller, home in site.homes.items() if controller != V2}
    return Cell(outer, {c: path for c, path in v1.items() if os.path.isdir(path)}, site.own)


def _is_made(directory: str) -> bool:
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
    except OSError:
        return False
    return True


def _is_settled(outer: str, site: Site) -> bool:
    """Make the subtree of version 2 and move into shim/; again when a sweep has taken it from under us."""
    for _ in range(_TRIES):
        try:
            os.makedirs(f"{outer}/{_SHIM}", 0o755, exist_ok=True)
            cgroup.write(f"{outer}/{_SHIM}", cgroup.PROCS, "0")
            os.makedirs(f"{outer}/{_RUN}", 0o755, exist_ok=True)
        except OSError as error:
            if error.errno in _NOT_THERE:
                continue
            return False
        cgroup.enable(os.path.dirname(outer), site.controllers)
        cgroup.enable(outer, site.controllers)
        return cgroup.has(f"{outer}/{_RUN}", "cgroup.freeze")
    return False


def _limit(outer: str | None, v1: Mapping[str, str], limits: Wanted) -> dict[str, int]:
    """Set each limit in the first place that takes it; return those that hold."""
    found: dict[str, int] = {}
    run_dir = f"{outer}/{_RUN}" if outer else None
    if limits.memory_bytes is not None and _is_memory_limited(run_dir, v1, limits.memory_bytes):
        found["memory_bytes"] = limits.memory_bytes
    if limits.tasks is not None and (
        _is_set(run_dir, "pids.max", limits.tasks) or _is_set(v1.get("pids"), "pids.max", limits.tasks)
    ):
        found["tasks"] = limits.tasks
    low, high = _CPU_WEIGHTS
    weight = min(high, max(low, _CPU_WEIGHT * limits.cpus))
    # A weight is one among siblings: those of `outer` are the other runs, that of `run/` is the shim.
    shares = _CPU_SHARES * limits.cpus
    if _is_set(outer, "cpu.weight", weight) or _is_set(v1.get("cpu"), "cpu.shares", shares):
        found["cpu_weight"] = weight
    return found


def _is_memory_limited(run_dir: str | None, v1: Mapping[str, str], limit_bytes: int) -> bool:
    if _is_set(run_dir, "memory.max", limit_bytes):
        _is_set(run_dir, "memory.swap.max", 0)  # a limit that swaps instead would slow everybody down
        return True
    memory = v1.get("memory")
    if not _is_set(memory, "memory.limit_in_bytes", limit_bytes):
        return False
    _is_set(memory, "memory.memsw.limit_in_bytes", limit_bytes)
    return True


def _is_set(directory: str | None, name: str, value: int) -> bool:
    if directory is None or not cgroup.has(directory, name):
        return False
    return cgroup.is_written(directory, name, str(value))


def _needed(limits: Mapping[str, int]) -> set[str]:
    """The controllers whose version-1 directories are used; memory's also for its evidence alone."""
    names = {"tasks": "pids", "cpu_weight": "cpu"}
    return {"freezer", "memory"} | {names[limit] for limit in limits if limit in names}
