"""The kill sequence: TERM and CONT, a grace period, then STOP and KILL in rounds until the tree is empty.

In the grace period, `signal_order` decides which processes get TERM, or the signal that was asked for: at the
beginning, after each end of a process, and in the last round.  STOP comes before KILL because some programs
restart their dead children: a stopped process does not fork.  `is_forced` means that the leader was alive at
the first KILL.  The kernel kills all processes of a control group at one instant; signals are for processes
outside of it.
"""

import signal
import time

from mosaicd.procfs import Process
from mosaicd.protocol import signals
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.records.orders import TO_LEADER, TO_TREE
from mosaicd.shim import child, process_table, signal_order
from mosaicd.shim.process_traits import traits_of
from mosaicd.shim.tree import Tree, kill_cgroup_members, stop_running

_STOP_PASSES = 8
_FIRST_ROUND_S = 0.002
_LAST_ROUND_S = 0.1
#: Between two looks at the tree in the grace period; the end of a child of the shim causes one, too.
_FIRST_LOOK_S = 0.02
_LAST_LOOK_S = 1.0
#: The time of a look, so many times, passes until the next: a machine may have thousands of processes.
_LOOK_SHARE = 4
#: From this round on, direct children are also killed as fast as possible.
_CHILDREN_ROUND = 3
_CHILDREN_PASSES = 32


class KillSequence:
    """The kill sequence of one process tree; a second `begin` can only shorten its grace period."""

    def __init__(self, tree: Tree, signal_to: str | None = None, signal_name: str | None = None) -> None:
        """`signal_to`: TO_LEADER, TO_TREE, or None for the usual order; `signal_name`: instead of TERM."""
        self._tree = tree
        self._signal_to = signal_to
        self._number = signals.number_of(signal_name or "TERM")
        self._sent: dict[signal_order.Identity, set[int]] = {}
        self._kill_at: float | None = None
        self._last_round_at = 0.0
        self._is_last_round_over = False
        self._looks = Backoff(_FIRST_LOOK_S, _LAST_LOOK_S)
        self._look_at = 0.0
        self._may_look_at = 0.0
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

    def begin(self, now: float, grace_s: float, signal_name: str | None = None) -> None:
        """Begin; if it has begun, shorten the grace period, and send the signal if it is another one."""
        number = signals.number_of(signal_name) if signal_name else self._number
        kill_at = now + grace_s
        last_round_at = kill_at - signal_order.last_round_s(grace_s)
        if self._kill_at is not None:
            if kill_at < self._kill_at:
                self._kill_at, self._last_round_at = kill_at, min(self._last_round_at, last_round_at)
            if number != self._number and not self._is_last_round_over:
                self._number = number
                members = self._tree.read_members().processes
                self._send(signal_order.receivers_again(members, self._sent, number, traits_of=traits_of))
                self.note_end(now)
            return
        self._number = number
        self._kill_at, self._last_round_at = kill_at, last_round_at
        if grace_s > 0:
            self._look(now, to_all=self._signal_to == TO_TREE)
            self._tree.run_cgroup.thaw()
            for process in self._tree.read_members().processes:
                child.send(process, signal.SIGCONT)  # a stopped process does not act on TERM until CONT

    def note_end(self, now: float) -> None:
        """Note that a process of the tree may have ended, so that others are next."""
        self._look_at = min(self._look_at, max(now, self._may_look_at))

    def next_at(self) -> float | None:
        """Return when `tick` is due, or None."""
        if self._kill_at is None:
            return None
        if self.is_killing:
            return max(self._kill_at, self._round_at)
        moments = [self._kill_at, self._look_at]
        return min(moments if self._is_last_round_over else [*moments, self._last_round_at])

    def tick(self, now: float) -> None:
        """Send the signal to the next processes, or kill the tree once, if that is due."""
        due = self.next_at()
        if due is None or self._kill_at is None or now < due:
            return
        if now >= self._kill_at:
            self._rounds += 1
            self._kill_round()
            self._round_at = now + self._backoff.next_s()
        elif now >= self._last_round_at and not self._is_last_round_over:
            self._is_last_round_over = True
            self._number = signal.SIGTERM
            self._look(now, to_all=True)
        else:
            self._look(now, to_all=False)

    def _look(self, now: float, *, to_all: bool) -> None:
        """Send the signal to the processes that are next."""
        began = time.monotonic()
        receivers = self._next_receivers(to_all=to_all)
        self._send(receivers)
        if receivers:
            self._looks.reset()
        self._may_look_at = now + max(_FIRST_LOOK_S, _LOOK_SHARE * (time.monotonic() - began))
        self._look_at = max(self._may_look_at, now + self._looks.next_s())

    def _send(self, receivers: list[tuple[Process, signal.Signals]]) -> None:
        for process, number in receivers:
            self._sent.setdefault(signal_order.identity(process), set()).add(number)
            child.send(process, number)
            if process.is_stopped:
                child.send(process, signal.SIGCONT)

    def _next_receivers(self, *, to_all: bool) -> list[tuple[Process, signal.Signals]]:
        leader = self._tree.leader()
        if leader is not None and not to_all and signal_order.is_done(leader, self._sent, self._number):
            return []  # without a survey
        return signal_order.next_receivers(
            self._tree.read_members().processes, leader, self._sent, self._number,
            to_all=to_all, with_foreground=self._signal_to != TO_LEADER, traits_of=traits_of,
        )  # fmt: skip

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
