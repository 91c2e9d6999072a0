"""Pause and resume of a process tree: freeze and thaw it, or ask a cooperative worker.

With a control group, the kernel freezes the tree at one instant and reports when all processes are frozen.  A
process that waits in the kernel, for example for a dead file server, delays that report.  After a while it
counts as frozen, because it freezes before it runs another instruction.

Processes outside of a control group get SIGSTOP.  The tree is paused if two surveys in a row show the same
members, all stopped: the second survey would show a process that was forked during the first.  A child that
is stopped between vfork and exec blocks its parent in the kernel, where STOP has no effect, so it gets CONT.

A cooperative worker that does not answer in time is frozen.  The unread order `pause` is still in its control
channel, so `resume` is sent before it thaws.
"""

import json
import signal
import socket
import time
from collections.abc import Callable

from mosaicd.procfs import Process
from mosaicd.protocol.backoff import Backoff
from mosaicd.shim import child
from mosaicd.shim.tree import Tree, TreeMembers, stop_running

FREEZE = "freeze"
COOPERATIVE = "cooperative"

_RUNNING = "running"
_ASKED = "asked"
_FREEZING = "freezing"
_PAUSED = "paused"
_THAWING = "thawing"
_RESUMING = "resuming"

_FIRST_CHECK_S = 0.001
_LAST_CHECK_S = 0.05
_THAW_LIMIT_S = 2.0
_MOST_VFORK_ROUNDS = 50
_KERNEL_WAIT_S = 0.5  # after this time, only processes that wait in the kernel are not frozen


class ControlChannel:
    """The shim's end of $MOSAIC_CONTROL_FD: it sends JSON lines and never waits."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    def send(self, order: str, **more: float) -> None:
        """Send an order; it is lost if the worker has closed its end or never reads."""
        try:
            self._end.send(json.dumps({"control": order, **more}).encode() + b"\n")
        except OSError:
            pass


class Pause:
    """The pause of one run, as a state machine from running to paused and back."""

    def __init__(
        self,
        tree: Tree,
        ack_timeout_s: float,
        on_paused: Callable[[str, float], None],
        on_continued: Callable[[float], None],
    ) -> None:
        self.control: ControlChannel | None = None
        self._tree = tree
        self._ack_timeout_s = ack_timeout_s
        self._on_paused = on_paused
        self._on_continued = on_continued
        self._state = _RUNNING
        self._mode: str | None = None
        self._has_pause_order = False  # the worker got `pause`, and no `resume` after it
        self._due_at: float | None = None
        self._thaw_deadline = 0.0
        self._backoff = Backoff(_FIRST_CHECK_S, _LAST_CHECK_S)
        self._stopped_pids: frozenset[int] = frozenset()
        self._vfork_rounds = 0
        self._freeze_at = 0.0
        self._is_first_thaw = False
        #: Times of the last fact `paused` or `continued`; at least one of the two is None.
        self.frozen_at: float | None = None
        self.thawed_at: float | None = None

    @property
    def mode(self) -> str | None:
        """Return how the run is paused, None if it is not paused."""
        return self._mode if self._state == _PAUSED else None

    @property
    def is_frozen(self) -> bool:
        """Return whether the run is paused by freezing."""
        return self.mode == FREEZE

    def next_at(self) -> float | None:
        """Return when `tick` is due, or None."""
        return self._due_at

    def request(self, mode: str, now: float) -> None:
        """Begin a pause; if the run is paused, report it again."""
        if self._state == _PAUSED:
            self._report_paused()
        elif mode == COOPERATIVE and self.control and self._state in (_RUNNING, _RESUMING):
            self.control.send("pause")
            self._has_pause_order = True
            self._enter(_ASKED, now + self._ack_timeout_s)
        elif mode == FREEZE or self._state in (_RUNNING, _THAWING, _RESUMING):
            self._freeze(now)

    def resume(self, now: float) -> None:
        """Begin to resume; if the run is running, report it again."""
        frozen = self._state in (_FREEZING, _THAWING) or self.is_frozen
        if self._has_pause_order and self.control:
            self.control.send("resume")
            self._has_pause_order = False
        if frozen:
            if self._state != _THAWING:
                self._thaw_deadline = now + _THAW_LIMIT_S
                self._backoff.reset()
                self._is_first_thaw = True
                self._tree.run_cgroup.thaw()
                self._enter(_THAWING, now)
        elif self._state == _PAUSED:
            self._enter(_RESUMING, now + self._ack_timeout_s)
        elif self._state == _ASKED:
            self._enter(_RUNNING, None)
        elif self._state == _RUNNING:
            self._report_continued()

    def note_record(self, kind: str) -> None:
        """Note the kind of a telemetry record: it may be the answer to `pause` or `resume`."""
        if self._state == _ASKED and kind == "paused":
            self._paused(COOPERATIVE)
        elif self._state == _RESUMING and kind in ("resumed", "step", "episode"):
            self._continued()

    def cancel(self) -> None:
        """Forget a pause in progress: the run is being stopped or has ended."""
        self._enter(_RUNNING, None)

    def tick(self, now: float) -> None:
        """Check the tree again, or stop waiting for an answer, if that is due."""
        if self._due_at is None or now < self._due_at:
            return
        if self._state == _ASKED:
            self._freeze(now)
        elif self._state == _RESUMING:
            self._continued()  # no answer: the heartbeat timeout now detects a worker that hangs
        elif self._state == _FREEZING:
            self._check_frozen(now)
        elif self._state == _THAWING:
            self._check_thawed(now)

    def _enter(self, state: str, due_at: float | None) -> None:
        self._state = state
        self._due_at = due_at

    def _freeze(self, now: float) -> None:
        self._stopped_pids = frozenset()
        self._vfork_rounds = 0
        self._backoff.reset()
        self._freeze_at = now
        self._tree.run_cgroup.freeze()
        self._enter(_FREEZING, now)

    def _check_frozen(self, now: float) -> None:
        inside = self._tree.run_cgroup.pids()
        members = self._tree.read_members()
        outside = [process for process in members.processes if process.pid not in inside]
        moving = stop_running(TreeMembers(outside, frozenset() if inside else members.groups))
        pids = frozenset(process.pid for process in members.processes)
        if not moving and self._continue_vfork_children(outside):
            moving = members.processes
            self._backoff.reset()
        if inside and not self._is_group_stopped([p for p in members.processes if p.pid in inside], now):
            moving = members.processes
        if not moving and pids and pids == self._stopped_pids:
            self._paused(FREEZE)
            return
        self._stopped_pids = frozenset() if moving else pids
        self._check_again(now)

    def _is_group_stopped(self, members: list[Process], now: float) -> bool:
        """Return whether all members of the control group are frozen, or wait in the kernel for long."""
        if self._tree.run_cgroup.is_frozen():
            return True
        states = {process.state for process in members}
        return now >= self._freeze_at + _KERNEL_WAIT_S and "D" in states and "R" not in states

    def _continue_vfork_children(self, members: list[Process]) -> bool:
        """Send CONT to stopped children that block their parents in a vfork; return whether there are any."""
        if self._vfork_rounds == _MOST_VFORK_ROUNDS:
            return False
        waiting = {process.pid for process in members if not process.is_stopped}
        blocking = [process for process in members if process.ppid in waiting and process.is_stopped]
        for process in blocking:
            child.send(process, signal.SIGCONT)
        self._vfork_rounds += bool(blocking)
        return bool(blocking)

    def _check_thawed(self, now: float) -> None:
        members = self._tree.read_members().processes
        stopped = [process for process in members if process.state == "T"]
        # A STOP that was sent just now may still be pending; CONT removes it.  So the first CONT goes to all.
        for process in members if self._is_first_thaw else stopped:
            child.send(process, signal.SIGCONT)
        self._is_first_thaw = False
        if (
            not stopped or now >= self._thaw_deadline
        ):  # a process that stops itself again is not paused by the shim
            self._continued()
            return
        self._check_again(now)

    def _check_again(self, now: float) -> None:
        self._due_at = now + self._backoff.next_s()

    def _paused(self, mode: str) -> None:
        self._mode = mode
        self._enter(_PAUSED, None)
        self._report_paused()

    def _continued(self) -> None:
        self._enter(_RUNNING, None)
        self._report_continued()

    def _report_paused(self) -> None:
        self.frozen_at, self.thawed_at = self.frozen_at or time.time(), None
        self._on_paused(self._mode or FREEZE, self.frozen_at)

    def _report_continued(self) -> None:
        self.frozen_at, self.thawed_at = None, time.time()
        self._on_continued(self.thawed_at)
