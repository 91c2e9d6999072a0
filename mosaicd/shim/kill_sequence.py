"""The kill sequence: TERM and CONT, a grace, then STOP and KILL again and again until the tree is empty.

STOP comes before KILL because of trees that repair themselves: what stands still neither forks nor
notices that a sibling died.  A MOSAIC worker's leader gets TERM first and alone, since it checkpoints
with the help of its children; they get theirs when it has gone.  `is_forced` says that KILL met the
leader alive.  What a control group holds is killed by the kernel, whole; signals are for the rest.
"""

import signal

from mosaicd.procfs import Process
from mosaicd.protocol.backoff import Backoff
from mosaicd.shim import child, process_table
from mosaicd.shim.tree import Tree, kill_held, stop_moving

_STOP_PASSES = 8
_FIRST_ROUND_S = 0.002
_LAST_ROUND_S = 0.1
#: From this round on the tree is taken for one that runs away from surveys.
_CHASE_ROUND = 3
_CHASES = 32


class KillSequence:
    """The kill sequence of one process tree; a second order can only shorten its grace."""

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
        return self._kill_at is not None

    @property
    def is_killing(self) -> bool:
        return self._rounds > 0

    def begin(self, now: float, grace_s: float) -> None:
        """Begin; if it has begun, shorten the grace."""
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + grace_s)
            return
        self._kill_at = now + grace_s
        if grace_s > 0:
            leader = self._tree.leader()
            self._end_gently([leader] if leader and self._leader_first else self._tree.look().members)

    def leader_has_ended(self) -> None:
        """Send TERM to the rest of the tree, if so far only the leader got it."""
        if self._leader_first and not self.is_killing:
            self._end_gently(self._tree.look().members)

    def next_at(self) -> float | None:
        """When the next round of KILL is due."""
        if self._kill_at is None:
            return None
        return max(self._kill_at, self._round_at)

    def tick(self, now: float) -> None:
        """Do a round of KILL if one is due."""
        due = self.next_at()
        if due is None or now < due:
            return
        self._rounds += 1
        self._kill_round()
        self._round_at = now + self._backoff.next_s()

    def _end_gently(self, members: list[Process]) -> None:
        for process in members:
            child.send(process, signal.SIGTERM)
        self._tree.run_cgroup.thaw()
        thawed = self._tree.look().members if self._leader_first else members
        for process in thawed:
            child.send(process, signal.SIGCONT)  # what is frozen does not act on TERM until it thaws

    def _kill_round(self) -> None:
        if self._tree.leader() is not None:
            self.is_forced = True
        kill_held(self._tree.run_cgroup)
        found = self._tree.look()
        for _ in range(_STOP_PASSES):
            if not stop_moving(found):
                break
            found = self._tree.look()
        for process in found.members:
            child.send(process, signal.SIGKILL)
        if self._rounds >= _CHASE_ROUND:
            self._chase()

    def _chase(self) -> None:
        """Kill our direct children as fast as they can be read: a chain of fork and exit outruns a survey."""
        for _ in range(_CHASES):
            children = process_table.children_of_this_process()
            if not children:
                return
            for pid in children:
                child.send_to_child(pid, signal.SIGKILL)
