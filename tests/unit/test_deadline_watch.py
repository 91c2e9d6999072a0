"""Deadlines at run time, on a clock and a loop that move only when told."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mosaicd.core.deadlines import Deadline, deadline
from mosaicd.core.run import Run
from mosaicd.dispatch.deadline_watch import SECOND_CHECK_S, DeadlineWatch
from mosaicd.protocol.states import CauseKind, RunKind, State, Want
from tests.harness.clock import ManualClock


def working(**fields: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": "R", "owner_uid": 1, "owner": "ada", "kind": RunKind.WORKER, "name": "n", "command": ("x",),
        "digest": "d", "created_at": 1.0, "state": State.EXEC, "attempt": 1,
    }  # fmt: skip
    return Run(**{**values, **fields})


class Timer:
    """One call that waits for its time."""

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call = due, call

    def cancel(self) -> None:
        self.due = float("inf")


class Bench:
    """A watch over one run, the clock it reads, and the loop that calls it."""

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

    def pass_(self, seconds: float, held_up: bool = False) -> None:
        """Let time pass; a blocked loop calls nothing before the end of it."""
        end = self.clock.mono() + seconds
        if held_up:
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


def test_living_is_not_moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats push the heartbeat's deadline back, and not the one for standing still; a step pushes both."""
    bench = Bench(working(heartbeat_timeout_s=3.0, stall_s=10.0), monkeypatch)
    for _ in range(8):
        bench.pass_(1.0)
        bench.watch.note_beat("R")
    bench.watch.note_progress("R")
    for _ in range(9):
        bench.pass_(1.0)
        bench.watch.note_beat("R")
    assert bench.missed == []
    bench.pass_(1.0 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.STUCK] and bench.missed[0].after_s == 10.0


def test_a_silent_run_is_missed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline passes a moment after its limit, not before, and is told once."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.pass_(3.0)
    assert bench.missed == []
    bench.pass_(2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]
    bench.pass_(100.0)
    assert len(bench.missed) == 1


@pytest.mark.parametrize("change", ["suspend", "set_wall"])
def test_suspend_and_clock_jumps_fault_nobody(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lid that is closed for a day, or a clock that is put right by a year, is no silence."""
    bench = Bench(working(heartbeat_timeout_s=3.0, stall_s=3.0), monkeypatch)
    bench.pass_(2.0)
    if change == "suspend":
        bench.clock.suspend(86_400.0)
    else:
        bench.clock.set_wall(0.0)
    bench.pass_(0.9)
    assert bench.missed == []


def test_who_did_not_watch_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was stopped for longer than the limit starts it anew; a silence it watches counts."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.pass_(60.0, held_up=True)
    bench.pass_(2.9)
    assert bench.missed == []
    bench.pass_(0.1 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]


def test_a_limit_that_no_loop_keeps_is_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer is a moment late, always: that is no daemon that did not watch, however short the limit."""
    bench = Bench(working(heartbeat_timeout_s=1e-6), monkeypatch)
    on_time = bench.call_later
    calls: list[float] = []

    def late(delay_s: float, call: Callable[..., None], *args: Any) -> Timer:
        calls.append(delay_s)
        return on_time(delay_s + 0.002, call, *args)

    monkeypatch.setattr(bench, "call_later", late)
    bench.pass_(1.0)
    assert bench.causes == [CauseKind.HEARTBEAT_LOST]
    assert len(calls) < 5, "nor does it keep the loop busy"


def test_a_beat_that_was_waiting_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives between the first look and the second saves the run."""
    bench = Bench(working(heartbeat_timeout_s=3.0), monkeypatch)
    bench.pass_(3.0 + SECOND_CHECK_S / 2)
    bench.watch.note_beat("R")
    bench.pass_(2.8)
    assert bench.missed == []


@pytest.mark.parametrize("want", [Want.PAUSE, Want.STOP])
def test_who_is_asked_to_stand_still_is_not_stuck(want: Want) -> None:
    """A pause or stop that is under way is no stall."""
    found = deadline(working(stall_s=1.0, heartbeat_timeout_s=1.0, want=want), 100.0, 100.0)
    assert found is not None and found.cause in (None, CauseKind.UNKILLABLE)


def test_nothing_runs_in_pause() -> None:
    """A paused run has no deadline, whatever limits it has."""
    run = working(state=State.PAUSE, want=Want.PAUSE, stall_s=1.0, heartbeat_timeout_s=1.0)
    assert deadline(run, 0.0, 0.0) is None


def test_a_wish_has_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for later has its whole time, however long the state has lasted."""
    bench = Bench(working(), monkeypatch)
    for want, state in ((Want.PAUSE, State.EXEC), (Want.RUN, State.PAUSE), (Want.STOP, State.PAUSE)):
        bench.pass_(15.0)
        bench.run = working(state=state, want=want)
        bench.watch.observe(bench.run)
    bench.pass_(14.9)
    assert bench.missed == []
    bench.pass_(0.1 + 2 * SECOND_CHECK_S)
    assert bench.causes == [CauseKind.UNKILLABLE]
