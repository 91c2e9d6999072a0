"""Control of a started worker: its limits, pause and resume, the post-mortem, the end of its process tree.

`Attempt` decides; this module acts on the process tree and reports the facts.
"""

import time
from collections.abc import Callable

from mosaicd.protocol import Json
from mosaicd.protocol.records import facts
from mosaicd.protocol.records.facts import LimitReached, Paused
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.shim.ending import BegunStop
from mosaicd.shim.kill_sequence import KillSequence
from mosaicd.shim.limits import RunLimits
from mosaicd.shim.pause import Pause
from mosaicd.shim.post_mortem import PostMortem
from mosaicd.shim.progress import Progress
from mosaicd.shim.start import StartedWorker
from mosaicd.shim.tree import OwnTree


class WorkerControl:
    """Control of the worker of one attempt; does nothing before `begin`."""

    def __init__(
        self, order: LaunchOrder, tree: OwnTree, dir_fd: int, add_fact: Callable[[Json], None],
        on_stop: Callable[[BegunStop, float], None],
    ) -> None:  # fmt: skip
        """Report facts with `add_fact`; call `on_stop` for a stop that has to begin now."""
        limits = order.limits
        self.kill_sequence = KillSequence(tree, order.signal_to, order.signal)
        self.pause = Pause(tree, limits.pause_ack_timeout_s, self._paused, self._continued)
        self.post_mortem = PostMortem(tree, dir_fd, limits.post_mortem_s)
        self._limits = RunLimits(limits.time_limit_s, limits.max_steps, limits.steps_before)
        self._grace_s = limits.grace_s
        self._tree = tree
        self._add_fact = add_fact
        self._on_stop = on_stop

    def begin(self, started: StartedWorker, now: float) -> None:
        """Take control of a worker that was started."""
        self._tree.worker = started.worker
        self.pause.control = started.control
        self._limits.start(now)

    @property
    def is_stopping(self) -> bool:
        """Return whether the worker is being stopped."""
        return self.kill_sequence.has_begun

    def ran_s(self, now: float) -> float:
        """Return how long the worker has run, without pauses."""
        return self._limits.ran_s(now)

    def next_at(self) -> float | None:
        """Return when `tick` is due, or None."""
        limit_at = None if self.is_stopping else self._limits.next_at()
        moments = [limit_at, self.post_mortem.next_at(), self.pause.next_at()]
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, now: float, progress: Progress) -> None:
        """Do all work that is due while the worker is alive."""
        if not self.is_stopping:
            self._check_limits(now, progress)
        self.pause.tick(now)
        if self.post_mortem.tick(now) and self.post_mortem.stop:
            self._on_stop(self.post_mortem.stop, now)

    def stop(self, grace_s: float, now: float, signal: str | None = None) -> None:
        """Ask the worker to end, and begin the kill sequence; if it has begun, shorten its grace.

        `signal`: its name; None: that of the run, or no other signal than before.
        """
        if self.pause.control:
            self.pause.control.send("stop", grace_s=grace_s)
        self.pause.cancel()
        self.kill_sequence.begin(now, grace_s, signal)

    def release(self, now: float) -> None:
        """Ask the worker to save a checkpoint and to end."""
        if self.pause.control:
            self.pause.control.send("checkpoint")
        self.stop(self._grace_s, now)

    def leader_has_ended(self) -> None:
        """Cancel a pause and finish a post-mortem: the worker has ended."""
        self.pause.cancel()
        self.post_mortem.finish()

    def end_rest(self, now: float) -> None:
        """End the processes that remain after the worker's end; a stop that has begun keeps its deadline."""
        if not self.is_stopping:
            self.kill_sequence.begin(now, self._grace_s, "TERM")

    def _check_limits(self, now: float, progress: Progress) -> None:
        kind = self._limits.reached(now, progress.steps, progress.steps_are_global)
        if kind is None:
            return
        ran_s = round(self._limits.ran_s(now), 3)
        self._add_fact(LimitReached(at=time.time(), kind=kind, ran_s=ran_s, steps=progress.steps).to_json())
        self._on_stop(BegunStop(kind, None, None, self._grace_s), now)

    def _paused(self, mode: str, at: float) -> None:
        self._limits.pause(time.monotonic())
        self._add_fact(Paused(at=at, mode=mode).to_json())

    def _continued(self, at: float) -> None:
        self._limits.start(time.monotonic())
        self._add_fact(facts.at_time(facts.CONTINUED, at))
