"""The process tree of a run, as something that can be signalled and looked at until it is empty.

Two kinds: the shim's own tree (everything below the subreaper, and what carries the marker), and the
orphaned tree of a shim that died (found by the leader's identity and the marker).  Both also hold what
is in the attempt's control group, where it has one; that alone finds an orphan without marker and kin.
"""

import os
import signal
from typing import NamedTuple, Protocol

from mosaicd import procfs
from mosaicd.procfs import Process
from mosaicd.shim import child, process_table
from mosaicd.shim.run_cgroup import RunCgroup


class TreeMembers(NamedTuple):
    """The living members at one look, and the process groups that hold nobody else."""

    members: list[Process]
    groups: frozenset[int]


class Tree(Protocol):
    """What the kill sequence and the pause need to know of a process tree."""

    @property
    def run_cgroup(self) -> RunCgroup:
        """Return the control groups of the attempt, which may hold no process."""

    def look(self) -> TreeMembers:
        """Return who belongs to the tree as of now."""

    def leader(self) -> Process | None:
        """Return the leader while it is alive."""


class OwnTree:
    """The tree of this shim's worker."""

    def __init__(self, run_id: str, run_cgroup: RunCgroup) -> None:
        self._run_id = run_id
        self.run_cgroup = run_cgroup
        self.worker: child.Worker | None = None

    def look(self) -> TreeMembers:
        table = process_table.survey()
        below = process_table.descendants(table, [os.getpid()])
        strays = process_table.marked(table, self._run_id, skip=[process.pid for process in below])
        below += strays
        below += process_table.descendants(table, [process.pid for process in strays])
        known = {process.pid for process in below} | {os.getpid()}
        below += [table[pid] for pid in self.run_cgroup.pids() - known if pid in table]
        return _members_of(table, below)

    def leader(self) -> Process | None:
        if self.worker is None or self.worker.is_reaped:
            return None
        process = procfs.read_process(self.worker.pid)
        return process if process and process.is_alive else None


class OrphanTree:
    """A tree whose shim is gone: nobody reaps for us, and every pid has to be proven."""

    def __init__(self, run_id: str, pid: int | None, start_ticks: int | None, run_cgroup: RunCgroup) -> None:
        self._run_id = run_id
        self.run_cgroup = run_cgroup
        self._pid = pid
        self._start_ticks = start_ticks
        self._known: dict[int, int] = {}  # pid -> start ticks of every member seen: its children are members

    def look(self) -> TreeMembers:
        table = process_table.survey()
        found = {process.pid: process for process in process_table.marked(table, self._run_id)}
        if self._pid is not None and self._start_ticks is not None:
            for process in process_table.in_session(table, self._pid, self._start_ticks):
                found[process.pid] = process
        for pid in self.run_cgroup.pids() & table.keys():
            found[pid] = table[pid]
        for pid, start in self._known.items():
            now = table.get(pid)
            if now is not None and now.start_ticks == start:
                found[pid] = now
        for process in process_table.descendants(table, list(found)):
            found[process.pid] = process
        found.pop(os.getpid(), None)
        self._known = {process.pid: process.start_ticks for process in found.values()}
        return _members_of(table, list(found.values()))

    def leader(self) -> Process | None:
        process = procfs.read_process(self._pid) if self._pid is not None else None
        if process and process.start_ticks == self._start_ticks and process.is_alive:
            return process
        return None


def _members_of(table: process_table.Survey, members: list[Process]) -> TreeMembers:
    alive = [process for process in members if process.is_alive]
    return TreeMembers(alive, process_table.own_groups(table, alive))


def kill_held(run_cgroup: RunCgroup) -> None:
    """Kill all that the control groups hold, at one instant: nothing in there can fork away from it."""
    if run_cgroup.run_dir is not None and child.try_kill_cgroup(run_cgroup.run_dir):
        return
    if not run_cgroup.can_freeze:
        return
    run_cgroup.freeze()  # what stands still does not fork while its members are read
    for pid in run_cgroup.pids() - {os.getpid()}:
        process = procfs.read_process(pid)
        if process is not None:
            child.send(process, signal.SIGKILL)
    run_cgroup.thaw()  # version 1: KILL acts only on what has thawed


def stop_moving(found: TreeMembers) -> list[Process]:
    """Send STOP to every member that still runs, and to its group at one instant; return those that did."""
    running = [process for process in found.members if not process_table.is_held(process)]
    stopped = [process for process in running if child.send(process, signal.SIGSTOP)]
    for pgid in {process.pgid for process in stopped} & found.groups:
        child.send_to_group(pgid, signal.SIGSTOP)  # pinned: a member of it has just been stopped
    return running
