"""Pausing a tree: freeze and thaw, verified in /proc, or ask the worker and wait for its word.

A freeze counts when two surveys in a row show the same members and every one of them stopped: what
forked between the first reading and the last STOP would be in the second.  A child that was stopped
between vfork and exec keeps its parent in the kernel, where STOP cannot take effect: it is let go on for
a moment.  A worker that was asked and did not answer in time is frozen; when it thaws it still finds our
question, so the answer "resume" is sent before CONT.

Where a control group holds the tree, the kernel freezes it at one instant and says when it stands still;
a member that waits in the kernel (for a dead file server) keeps it from saying so, and counts as held
when nothing else moves: it freezes before it runs another instruction.  STOP is for what left the group.
"""

import json
import signal
import socket
import time
from collections.abc import Callable

from mosaicd.procfs import Process
from mosaicd.protocol.backoff import Backoff
from mosaicd.shim import child
from mosaicd.shim.tree import Tree, TreeMembers, stop_moving

FREEZE = "freeze"
COOPERATIVE = "cooperative"

_RUNNING = "running"
_ASKED = "asked"
_FREEZING = "freezing"
_PAUSED = "paused"
_THAWING = "thawing"
_RESUMING = "resuming"

_FIRST_LOOK_S = 0.001
_LAST_LOOK_S = 0.05
_THAW_LIMIT_S = 2.0
_NUDGES = 50
_KERNEL_WAIT_S = 0.5  # by then the kernel has halted whatever it can


class ControlChannel:
    """Our end of $MOSAIC_CONTROL_FD: small JSON lines, never waited for."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    def say(self, word: str, **more: float) -> None:
        """Send one order; a worker that has closed its end, or never reads, does without."""
        try:
            self._end.send(json.dumps({"control": word, **more}).encode() + b"\n")
        except OSError:
            pass


class Pause:
    """Where a run stands between running and paused."""

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
        self._is_asked = False  # the worker has our "pause" and no "resume" after it
        self._due_at: float | None = None
        self._give_up_at = 0.0
        self._backoff = Backoff(_FIRST_LOOK_S, _LAST_LOOK_S)
        self._still: frozenset[int] = frozenset()
        self._nudges = 0
        self._freeze_at = 0.0
        self._is_first_thaw = False
        #: When the last fact was: one of the two is None.
        self.frozen_at: float | None = None
        self.thawed_at: float | None = None

    @property
    def mode(self) -> str | None:
        """How the run is paused, None while it is not."""
        return self._mode if self._state == _PAUSED else None

    @property
    def is_frozen(self) -> bool:
        return self.mode == FREEZE

    def next_at(self) -> float | None:
        return self._due_at

    def request(self, mode: str, now: float) -> None:
        """Pause; already paused, say so again."""
        if self._state == _PAUSED:
            self._report_paused()
        elif mode == COOPERATIVE and self.control and self._state in (_RUNNING, _RESUMING):
            self.control.say("pause")
            self._is_asked = True
            self._enter(_ASKED, now + self._ack_timeout_s)
        elif mode == FREEZE or self._state in (_RUNNING, _THAWING, _RESUMING):
            self._freeze(now)

    def resume(self, now: float) -> None:
        """Go on; already running, say so again."""
        frozen = self._state in (_FREEZING, _THAWING) or self.is_frozen
        if self._is_asked and self.control:
            self.control.say("resume")
            self._is_asked = False
        if frozen:
            if self._state != _THAWING:
                self._give_up_at = now + _THAW_LIMIT_S
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

    def note_line(self, kind: str) -> None:
        """The worker printed a record: its answer, perhaps."""
        if self._state == _ASKED and kind == "paused":
            self._paused(COOPERATIVE)
        elif self._state == _RESUMING and kind in ("resumed", "step", "episode"):
            self._continued()

    def abandon(self) -> None:
        """The run is being stopped, or has ended: nobody waits for a pause any more."""
        self._enter(_RUNNING, None)

    def tick(self, now: float) -> None:
        """Look again, or stop waiting for an answer."""
        if self._due_at is None or now < self._due_at:
            return
        if self._state == _ASKED:
            self._freeze(now)
        elif self._state == _RESUMING:
            self._continued()  # no answer: from here on the heartbeat deadline judges the worker
        elif self._state == _FREEZING:
            self._look_frozen(now)
        elif self._state == _THAWING:
            self._look_thawed(now)

    def _enter(self, state: str, due_at: float | None) -> None:
        self._state = state
        self._due_at = due_at

    def _freeze(self, now: float) -> None:
        self._still = frozenset()
        self._nudges = 0
        self._backoff.reset()
        self._freeze_at = now
        self._tree.run_cgroup.freeze()
        self._enter(_FREEZING, now)

    def _look_frozen(self, now: float) -> None:
        inside = self._tree.run_cgroup.pids()
        found = self._tree.look()
        outside = [process for process in found.members if process.pid not in inside]
        moving = stop_moving(TreeMembers(outside, frozenset() if inside else found.groups))
        pids = frozenset(process.pid for process in found.members)
        if not moving and self._nudge(outside):
            moving = found.members
            self._backoff.reset()
        if inside and not self._is_still([p for p in found.members if p.pid in inside], now):
            moving = found.members
        if not moving and pids and pids == self._still:
            self._paused(FREEZE)
            return
        self._still = frozenset() if moving else pids
        self._look_again(now)

    def _is_still(self, members: list[Process], now: float) -> bool:
        """Whether the group stands still: by its own word, or but for what waits in the kernel."""
        if self._tree.run_cgroup.is_frozen():
            return True
        states = {process.state for process in members}
        return now >= self._freeze_at + _KERNEL_WAIT_S and "D" in states and "R" not in states

    def _nudge(self, members: list[Process]) -> bool:
        """Let stopped children that keep their parents in the kernel go on; whether there were any."""
        if self._nudges == _NUDGES:
            return False
        waiting = {process.pid for process in members if not process.is_stopped}
        held_up = [process for process in members if process.ppid in waiting and process.is_stopped]
        for process in held_up:
            child.send(process, signal.SIGCONT)
        self._nudges += bool(held_up)
        return bool(held_up)

    def _look_thawed(self, now: float) -> None:
        members = self._tree.look().members
        stopped = [process for process in members if process.state == "T"]
        # A STOP that was sent a moment ago may not have been taken yet, and CONT takes it back.
        for process in members if self._is_first_thaw else stopped:
            child.send(process, signal.SIGCONT)
        self._is_first_thaw = False
        if not stopped or now >= self._give_up_at:  # what stops itself again is not held by us
            self._continued()
            return
        self._look_again(now)

    def _look_again(self, now: float) -> None:
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
