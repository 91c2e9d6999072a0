"""Nothing that is wanted may be left with nobody owing it; nobody stands under no deadline who should."""

import pytest

from mosaicd.core import fsm
from mosaicd.core.deadlines import deadline
from mosaicd.core.event import Event, Kind
from mosaicd.core.fsm import Action, owed
from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, RunKind, State


def run_after(*kinds: Kind) -> Run:
    """A command that was dispatched and then lived through `kinds`."""
    run = Run(
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", owner_uid=1, owner="ann", kind=RunKind.COMMAND, name="n",
        command=("x",), digest="d", created_at=1.0, rev=1, can_checkpoint=True, can_pause=True,
    )  # fmt: skip
    grant = {"attempt": 1, "nonce": "n", "slots": [], "cpus": 1}
    run = fsm.apply(run, Event(Kind.DISPATCHED, 1.0, data=grant))
    data: dict[Kind, dict[str, object]] = {
        Kind.REGISTERED: {"shim_pid": 5, "shim_start_ticks": 6},
        Kind.PAUSE_REQUESTED: {"mode": "release"},
        Kind.EXITED: {"exit_code": 0, "released": True},
        Kind.STOP_REQUESTED: {"grace_s": 3.0},
    }
    for kind in kinds:
        run = fsm.apply(run, Event(kind, 1.0, data=data.get(kind, {})))
    return run


WORKS = (Kind.REGISTERED, Kind.STARTED)


def test_a_release_asked_of_a_paused_run_is_owed() -> None:
    """A run that stands frozen, and is to give its slots back, is told so."""
    run = run_after(*WORKS, Kind.PAUSED, Kind.PAUSE_REQUESTED)
    assert (run.state, owed(run)) == (State.PAUSE, Action.PAUSE)


def test_resume_lets_a_held_released_run_go() -> None:
    """Resume of a run that waits takes its hold away, whether it waits in INIT or released."""
    run = run_after(*WORKS, Kind.PAUSE_REQUESTED, Kind.EXITED, Kind.RELEASED, Kind.HOLD)
    assert run.released and run.held
    run = fsm.apply(run, Event(Kind.RESUME_REQUESTED, 2.0))
    assert not run.held and owed(run) is Action.AWAIT_TURN


@pytest.mark.parametrize("kinds", [(Kind.REGISTERED,), WORKS])
def test_a_stop_stands_under_a_deadline(kinds: tuple[Kind, ...]) -> None:
    """A run that is still there after its grace and more is unkillable, and said so: never silently there."""
    due = deadline(run_after(*kinds, Kind.STOP_REQUESTED), 100.0, 100.0, 10.0)
    assert due is not None and (due.cause, due.due_mono) == (CauseKind.UNKILLABLE, 113.0)


def test_a_shim_that_never_starts_its_command_is_missed() -> None:
    """A plain command too has a time in which its shim must have started it."""
    due = deadline(run_after(Kind.REGISTERED), 100.0, 100.0)
    assert due is not None and due.cause is CauseKind.START_TIMEOUT
    assert deadline(run_after(*WORKS), 100.0, 100.0) is None
