"""Runtime of `core.deadlines`: one timer a live run, re-armed only when it fires.

A beat costs one dictionary write; the timer reads it when it fires.  Deadlines restart at every change of
state or want, and when a shim registers.

Note: if the daemon or the machine was suspended, a timer fires late and messages wait unread in the sockets.
So a timer that fires late restarts the deadline, and a deadline counts as missed only at a second check.
"""

import asyncio
from collections.abc import Callable

from mosaicd.clock import Clock
from mosaicd.core.deadlines import Deadline, DeadlineSubject, deadline, deadline_subject
from mosaicd.core.run import Run

#: The time between the two checks of a missed deadline; messages that have arrived are read meanwhile.
SECOND_CHECK_S = 0.1
#: A timer that fires later than this, or than this share of its limit, shows that the daemon was suspended.
#: The least lag is one that a busy loop has anyway; without it a very short limit would restart for ever.
MOST_LAG_S = 1.0
LAG_SHARE = 0.25
LEAST_LAG_S = SECOND_CHECK_S


class DeadlineWatch:
    """Call `on_missed(run, deadline)` on the loop when a run's deadline passes without a sign of life."""

    def __init__(
        self,
        clock: Clock,
        lookup: Callable[[str], Run | None],
        on_missed: Callable[[Run, Deadline], None],
        unkillable_s: float = 10.0,
        pause_ack_s: float = 10.0,
    ) -> None:
        self._clock = clock
        self._lookup = lookup
        self._on_missed = on_missed
        self._unkillable_s, self._pause_ack_s = unkillable_s, pause_ack_s
        self._since: dict[str, tuple[DeadlineSubject, float]] = {}  # its deadline subject, and since when
        self._beats: dict[str, float] = {}
        self._moves: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def observe(self, run: Run) -> None:
        """Restart the deadline of a run if a commit changed its state or want."""
        if not run.is_holding:
            self.forget(run.run_id)
        elif self._since.get(run.run_id, (None,))[0] != deadline_subject(run):
            self.restart(run)

    def restart(self, run: Run) -> None:
        """Restart the deadline of a run."""
        self._since[run.run_id] = (deadline_subject(run), self._clock.mono())
        self._arm(run)

    def note_beat(self, run_id: str) -> None:
        """Note that the worker of the run gave a sign of life."""
        self._beats[run_id] = self._clock.mono()

    def note_progress(self, run_id: str) -> None:
        """Note that the counts of the run changed: its worker lives and makes progress."""
        self._beats[run_id] = self._moves[run_id] = self._clock.mono()

    def forget(self, run_id: str) -> None:
        """Cancel the timer of a run and drop its times."""
        self._since.pop(run_id, None)
        self._beats.pop(run_id, None)
        self._moves.pop(run_id, None)
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Cancel every timer."""
        for run_id in list(self._since):
            self.forget(run_id)

    def _arm(self, run: Run) -> None:
        """Set the timer of the run to its deadline, if it has one."""
        timer = self._timers.pop(run.run_id, None)
        if timer is not None:
            timer.cancel()
        due = self._deadline(run)
        if due is not None:
            self._call_at(run.run_id, due.due_mono, is_second=False)

    def _call_at(self, run_id: str, at_mono: float, *, is_second: bool) -> None:
        loop, delay_s = asyncio.get_running_loop(), max(0.0, at_mono - self._clock.mono())
        self._timers[run_id] = loop.call_later(delay_s, self._check, run_id, at_mono, is_second)

    def _deadline(self, run: Run) -> Deadline | None:
        since = self._since[run.run_id][1]
        beat, moved = self._beats.get(run.run_id, since), self._moves.get(run.run_id, since)
        return deadline(run, since, beat, self._unkillable_s, self._pause_ack_s, moved_mono=moved)

    def _check(self, run_id: str, set_for_mono: float, is_second: bool) -> None:
        """Check the deadline of the run when its timer fires."""
        self._timers.pop(run_id, None)
        run = self._lookup(run_id)
        if run is None or run_id not in self._since:
            return
        due = self._deadline(run)
        if due is None:
            return
        now = self._clock.mono()
        if due.due_mono > now:
            self._arm(run)
        elif now - max(set_for_mono, due.due_mono) > _most_lag_s(due):
            self.restart(run)
        elif is_second:
            self._on_missed(run, due)
        else:
            self._call_at(run_id, now + SECOND_CHECK_S, is_second=True)


def _most_lag_s(due: Deadline) -> float:
    """Return the lag of a timer above which the daemon counts as suspended."""
    return min(MOST_LAG_S, max(LEAST_LAG_S, LAG_SHARE * due.after_s))
