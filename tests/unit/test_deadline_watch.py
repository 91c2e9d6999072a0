"""The deadline watch, on a manual clock and an event loop that the test drives."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mosaicd.core.deadlines import Deadline, deadline
from mosaicd.core.run import Run
from mosaicd.dispatch.deadline_watch import SECOND_CHECK_S, DeadlineWatch
from mosaicd.protocol.records.orders import GRACE_S
from mosaicd.protocol.states import CauseKind, RunKind, State, Want
from tests.harness.clock import ManualClock


def working(**fields: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": "R", "owner_uid": 1, "owner": "ada", "kind": RunKind.WORKER, "name": "n", "command": ("x",),
        "digest": "d", "created_at": 1.0, "state": State.EXEC, "attempt": 1,
    }  # fmt: skip
    return Run(**{**values, **fields})


class Timer:
    """A scheduled call."""

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call = due, call

    def cancel(self) -> None:
        self.due = float("inf")


class Bench:
    """A deadline watch over one run, with its clock and its event loop."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self.run: Run | None = run
        self.missed: list[Deadline] = []
        self.timers: list[Timer] = []
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)
        self.watch = DeadlineWatch(self.clock, lambda _: self.run, lambda _, due: self.missed.append(due))
        self.watch.observe(run)

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(self.clock.mono() + delay_s, lambda: call(*args))
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float, is_blocked: bool = False) -> None:
        """Let time pass; with `is_blocked` the loop calls its timers only at the end."""
        end = self.clock.mono() + seconds
        if is_blocked:
            self.clock.advance(seconds)
        while due := [timer for timer in self.timers if timer.due <= end]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.clock.advance(max(0.0, first.due - self.clock.mono()))
            first.call()
            end = max(end, self.clock.mono())
        self.clock.advance(max(0.0, end - self.clock.mono()))

    @property
    def causes(self) -> list[CauseKind | None]:
        return [due.cause for due in self.missed]


def test_heartbeats_do_not_restart_the_stall_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat restarts only the heartbeat deadline; progress restarts both deadlines."""
    bench = Bench(working(heartbeat_timeout_s=3.0, stall_s=10.0), monkeypatch)
    for _ in range(8):
        bench.advance(1.0)
        bench.watch.note_beat("R")
    bench.watch.note_progress("R")
    for _ in range(9):
        bench.advance(1.0)
        bench.watch.note_beat("R")
    assert bench.missed == []
    bench.advance(1.0 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.STUCK] and bench.missed[0].after_s == 10.0


def test_a_missed_heartbeat_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent run is reported once, soon after the heartbeat timeout and not before."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.advance(3.0)
    assert bench.missed == []
    bench.advance(2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]
    bench.advance(100.0)
    assert len(bench.missed) == 1


@pytest.mark.parametrize("change", ["suspend", "set_wall"])
def test_no_deadline_passes_because_of_a_suspend_or_a_clock_jump(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspend of a day and a jump of the wall clock do not count as silence."""
    bench = Bench(working(heartbeat_timeout_s=3.0, stall_s=3.0), monkeypatch)
    bench.advance(2.0)
    if change == "suspend":
        bench.clock.suspend(86_400.0)
    else:
        bench.clock.set_wall(0.0)
    bench.advance(0.9)
    assert bench.missed == []


def test_a_blocked_daemon_restarts_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the daemon was blocked for longer than the limit, the limit starts again; later silence counts."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.advance(60.0, is_blocked=True)
    bench.advance(2.9)
    assert bench.missed == []
    bench.advance(0.1 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]


def test_a_limit_below_the_timer_resolution_is_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that is 2 ms late does not count as a blocked daemon, however short the limit is."""
    bench = Bench(working(heartbeat_timeout_s=1e-6), monkeypatch)
    call_on_time = bench.call_later
    calls: list[float] = []

    def late(delay_s: float, call: Callable[..., None], *args: Any) -> Timer:
        calls.append(delay_s)
        return call_on_time(delay_s + 0.002, call, *args)

    monkeypatch.setattr(bench, "call_later", late)
    bench.advance(1.0)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]
    assert len(calls) < 5, "the watch keeps the loop busy"


def test_a_heartbeat_before_the_second_check_saves_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat between the first check and the second restarts the deadline."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.advance(3.0 + SECOND_CHECK_S / 2)
    bench.watch.note_beat("R")
    bench.advance(2.8)
    assert bench.missed == []


@pytest.mark.parametrize("want", [Want.PAUSE, Want.STOP])
def test_a_run_that_is_to_pause_or_stop_is_not_stuck(want: Want) -> None:
    """During a pause or a stop, neither the stall limit nor the heartbeat timeout applies."""
    due = deadline(working(stall_s=1.0, heartbeat_timeout_s=1.0, want=want), 100.0, 100.0)
    assert due is not None and due.cause in (None, CauseKind.UNKILLABLE)


def test_a_paused_run_has_no_deadline() -> None:
    """In PAUSE with want=pause, no limit of the run applies."""
    run = working(state=State.PAUSE, want=Want.PAUSE, stall_s=1.0, heartbeat_timeout_s=1.0)
    assert deadline(run, 0.0, 0.0) is None


def test_each_request_starts_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later request has the full time, however long the run has been in its state."""
    bench = Bench(working(), monkeypatch)
    for want, state in ((Want.PAUSE, State.EXEC), (Want.RUN, State.PAUSE), (Want.STOP, State.PAUSE)):
        bench.advance(15.0)
        bench.run = working(state=state, want=want)
        bench.watch.observe(bench.run)
    bench.advance(GRACE_S + 9.9)
    assert bench.missed == []
    bench.advance(0.1 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.UNKILLABLE]
