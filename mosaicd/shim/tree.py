"""The process tree of a run: its members, and signals to all of them.

`OwnTree` is the tree of a living shim: all descendants of the shim, which is a subreaper, and all processes
with the run's marker.  `OrphanTree` is the tree of a dead shim: it is found by the leader's identity and the
marker.  Both include the processes in the attempt's control group.  Only the control group finds an orphan
that has neither a marker nor a known parent.
"""

import os
import signal
from typing import NamedTuple, Protocol

from mosaicd import procfs
from mosaicd.procfs import Process
from mosaicd.shim import child, process_table
from mosaicd.shim.run_cgroup import RunCgroup


class TreeMembers(NamedTuple):
    """The living processes of a tree, and the process groups that contain no other living process."""

    processes: list[Process]
    groups: frozenset[int]


class Tree(Protocol):
    """The interface of a process tree for the kill sequence, the pause and the post-mortem."""

    @property
    def run_cgroup(self) -> RunCgroup:
        """Return the control groups of the attempt; they may contain no process."""

    def read_members(self) -> TreeMembers:
        """Return the processes that now belong to the tree."""

    def leader(self) -> Process | None:
        """Return the leader, None if it is not alive."""


class OwnTree:
    """The tree of this shim's worker."""

    def __init__(self, run_id: str, run_cgroup: RunCgroup) -> None:
        self._run_id = run_id
        self.run_cgroup = run_cgroup
        self.worker: child.Worker | None = None

    def read_members(self) -> TreeMembers:
        table = process_table.survey()
        below = process_table.descendants(table, [os.getpid()])
        marked = process_table.marked(table, self._run_id, skip=[process.pid for process in below])
        below += marked
        below += process_table.descendants(table, [process.pid for process in marked])
        known = {process.pid for process in below} | {os.getpid()}
        below += [table[pid] for pid in self.run_cgroup.pids() - known if pid in table]
        return _members_of(table, below)

    def leader(self) -> Process | None:
        if self.worker is None or self.worker.is_reaped:
            return None
        process = procfs.read_process(self.worker.pid)
        return process if process and process.is_alive else None


class OrphanTree:
    """The tree of a dead shim; every pid is checked by its start time, since this shim is not the parent."""

    def __init__(self, run_id: str, pid: int | None, start_ticks: int | None, run_cgroup: RunCgroup) -> None:
        self._run_id = run_id
        self.run_cgroup = run_cgroup
        self._pid = pid
        self._start_ticks = start_ticks
        #: pid -> start ticks of all earlier members: their children are members.
        self._known: dict[int, int] = {}

    def read_members(self) -> TreeMembers:
        table = process_table.survey()
        members_by_pid = {process.pid: process for process in process_table.marked(table, self._run_id)}
        if self._pid is not None and self._start_ticks is not None:
            for process in process_table.in_session(table, self._pid, self._start_ticks):
                members_by_pid[process.pid] = process
        for pid in self.run_cgroup.pids() & table.keys():
            members_by_pid[pid] = table[pid]
        for pid, start in self._known.items():
            now = table.get(pid)
            if now is not None and now.start_ticks == start:
                members_by_pid[pid] = now
        for process in process_table.descendants(table, list(members_by_pid)):
            members_by_pid[process.pid] = process
        members_by_pid.pop(os.getpid(), None)
        self._known = {process.pid: process.start_ticks for process in members_by_pid.values()}
        return _members_of(table, list(members_by_pid.values()))

    def leader(self) -> Process | None:
        process = procfs.read_process(self._pid) if self._pid is not None else None
        if process and process.start_ticks == self._start_ticks and process.is_alive:
            return process
        return None


def _members_of(table: process_table.Survey, members: list[Process]) -> TreeMembers:
    alive = [process for process in members if process.is_alive]
    return TreeMembers(alive, process_table.exclusive_groups(table, alive))


def kill_cgroup_members(run_cgroup: RunCgroup) -> None:
    """Kill all processes of the control groups at one instant, so that none escapes by forking."""
    if run_cgroup.run_dir is not None and child.try_kill_cgroup(run_cgroup.run_dir):
        return
    if not run_cgroup.can_freeze or os.getpid() in run_cgroup.pids():
        return  # a frozen shim could not go on; the signals of the kill sequence remain
    run_cgroup.freeze()  # so that no process forks while the members are read
    for pid in run_cgroup.pids():
        process = procfs.read_process(pid)
        if process is not None:
            child.send(process, signal.SIGKILL)
    run_cgroup.thaw()  # version 1: KILL acts only on a thawed process


def stop_running(members: TreeMembers) -> list[Process]:
    """Send STOP to all members that still run, and to their exclusive groups; return those members."""
    running = [process for process in members.processes if not process_table.is_stopped_or_stopping(process)]
    stopped = [process for process in running if child.send(process, signal.SIGSTOP)]
    for pgid in {process.pgid for process in stopped} & members.groups:
        child.send_to_group(pgid, signal.SIGSTOP)  # safe: a member of the group was just stopped
    return running
