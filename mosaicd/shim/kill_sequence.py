"""The kill sequence: TERM and CONT, a grace period, then STOP and KILL in rounds until the tree is empty.

STOP comes before KILL because some programs restart their dead children: a stopped process does not fork.
The leader of a MOSAIC worker gets TERM first, because it needs its children to save a checkpoint; the
children get TERM when it has ended.  `is_forced` means that the leader was alive at the first KILL.  The
kernel kills all processes of a control group at one instant; signals are for processes outside of it.
"""

import signal

from mosaicd.procfs import Process
from mosaicd.protocol.backoff import Backoff
from mosaicd.shim import child, process_table
from mosaicd.shim.tree import Tree, kill_cgroup_members, stop_running

_STOP_PASSES = 8
_FIRST_ROUND_S = 0.002
_LAST_ROUND_S = 0.1
#: From this round on, direct children are also killed as fast as possible.
_CHILDREN_ROUND = 3
_CHILDREN_PASSES = 32


class KillSequence:
    """The kill sequence of one process tree; a second `begin` can only shorten its grace period."""

    def __init__(self, tree: Tree, leader_first: bool) -> None:
        self._tree = tree
        self._leader_first = leader_first
        self._kill_at: float | None = None
        self._backoff = Backoff(_FIRST_ROUND_S, _LAST_ROUND_S)
        self._round_at = 0.0
        self._rounds = 0
        self.is_forced = False

    @property
    def has_begun(self) -> bool:
        """Return whether the sequence has begun."""
        return self._kill_at is not None

    @property
    def is_killing(self) -> bool:
        """Return whether the grace period is over and a round of KILL was made."""
        return self._rounds > 0

    def begin(self, now: float, grace_s: float) -> None:
        """Begin with TERM; if the sequence has begun, shorten its grace period."""
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + grace_s)
            return
        self._kill_at = now + grace_s
        if grace_s > 0:
            leader = self._tree.leader()
            self._send_term(
                [leader] if leader and self._leader_first else self._tree.read_members().processes
            )

    def leader_has_ended(self) -> None:
        """Send TERM to the rest of the tree, if so far only the leader got it."""
        if self._leader_first and not self.is_killing:
            self._send_term(self._tree.read_members().processes)

    def next_at(self) -> float | None:
        """Return when the next round of KILL is due, or None."""
        if self._kill_at is None:
            return None
        return max(self._kill_at, self._round_at)

    def tick(self, now: float) -> None:
        """Kill the tree once if a round is due."""
        due = self.next_at()
        if due is None or now < due:
            return
        self._rounds += 1
        self._kill_round()
        self._round_at = now + self._backoff.next_s()

    def _send_term(self, members: list[Process]) -> None:
        for process in members:
            child.send(process, signal.SIGTERM)
        self._tree.run_cgroup.thaw()
        receivers = self._tree.read_members().processes if self._leader_first else members
        for process in receivers:
            child.send(process, signal.SIGCONT)  # a stopped process does not act on TERM until CONT

    def _kill_round(self) -> None:
        if self._tree.leader() is not None:
            self.is_forced = True
        kill_cgroup_members(self._tree.run_cgroup)
        members = self._tree.read_members()
        for _ in range(_STOP_PASSES):
            if not stop_running(members):
                break
            members = self._tree.read_members()
        for process in members.processes:
            child.send(process, signal.SIGKILL)
        if self._rounds >= _CHILDREN_ROUND:
            self._kill_children()

    def _kill_children(self) -> None:
        """Kill the children of the shim in many quick passes.

        Processes that each fork the next one and exit can be faster than a survey of /proc.
        """
        for _ in range(_CHILDREN_PASSES):
            children = process_table.children_of_this_process()
            if not children:
                return
            for pid in children:
                child.send_to_child(pid, signal.SIGKILL)
