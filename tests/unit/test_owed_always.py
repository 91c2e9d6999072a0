"""Every request is owed, and every run that waits for a process has a deadline."""

from dataclasses import replace
from itertools import product

import pytest

from mosaicd.core import fsm
from mosaicd.core.deadlines import deadline
from mosaicd.core.event import Event, Kind
from mosaicd.core.fsm import Action, owed
from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.protocol.states import CauseKind, PauseMode, RunKind, State, Want


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
        Kind.LOST: {"kind": "shim_lost"},
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
    assert not run.held and owed(run) is Action.QUEUE


@pytest.mark.parametrize("kinds", [(Kind.REGISTERED,), WORKS, (*WORKS, Kind.PAUSED)])
def test_a_stop_stands_under_a_deadline(kinds: tuple[Kind, ...]) -> None:
    """A run that is still there after its grace and more is unkillable, and said so: never silently there."""
    due = deadline(run_after(*kinds, Kind.STOP_REQUESTED), 100.0, 100.0, 10.0)
    assert due is not None and (due.cause, due.due_mono) == (CauseKind.UNKILLABLE, 113.0)


def test_a_shim_that_never_starts_its_command_is_missed() -> None:
    """A plain command too has a time in which its shim must have started it."""
    due = deadline(run_after(Kind.REGISTERED), 100.0, 100.0)
    assert due is not None and due.cause is CauseKind.START_TIMEOUT
    assert deadline(run_after(*WORKS), 100.0, 100.0) is None


#: Runs that wait for no process: their user or the queue decides when they continue.
AT_REST = "waits for its turn, or as its user wants it"


def walks(kinds: tuple[Kind, ...]) -> Run | None:
    try:
        return run_after(*kinds)
    except fsm.IllegalTransition:
        return None


def lives() -> dict[tuple[fsm.Place, Want, bool, bool], Run]:
    """A run for each place, wish, kind of wish and known end that any few events lead to."""
    wishes = (Kind.STOP_REQUESTED, Kind.PAUSE_REQUESTED, Kind.RESUME_REQUESTED)
    roads = [(), (Kind.REGISTERED,), WORKS, (*WORKS, Kind.PAUSED), (*WORKS, Kind.LOST)]
    roads.append((*WORKS, Kind.PAUSE_REQUESTED, Kind.EXITED, Kind.RELEASED))
    found = {}
    for road, last in product(roads, ((), (Kind.EXITED,))):
        for some in ((), *((wish,) for wish in wishes), wishes[1:]):
            run = walks((*road, *some, *last))
            if run is not None and not run.is_final:
                is_release = run.pause_mode is PauseMode.RELEASE
                found[fsm.place(run), run.want, is_release, run.exit is not None] = run
                frozen = replace(run, pause_mode=PauseMode.FREEZE)
                found[fsm.place(run), run.want, False, run.exit is not None] = frozen
    return found


@pytest.mark.parametrize("run", lives().values(), ids=lambda run: f"{fsm.place(run)}-{run.want}-{owed(run)}")
def test_nobody_is_waited_for_without_end(run: Run) -> None:
    """Whatever a run waits for that has slots: the daemon acts again and again, or a deadline ends the wait
    and its event has a row there; and the reason of the run says what it waits for."""
    action, due = owed(run), deadline(run, 0.0, 0.0)
    told = run_object(run, Progress(), "/x")["reason"] or run_object(run, Progress(), "/x")["cause"]
    if not run.is_holding:
        assert action in (Action.QUEUE, Action.WITHDRAW, None) and due is None, AT_REST
    elif action in (Action.EMPTY_TREE, Action.BREAK):
        assert due is None and told, "the dispatcher looks again and again, until the tree is empty"
        assert fsm.is_legal(run, Kind.UNKILLABLE), "and says so"
    elif action is None:
        assert run.state is not State.EXEC or run.want is Want.RUN
        assert run.state is not State.PAUSE or run.want is Want.PAUSE
    else:
        assert due is not None and told
        kind = Kind.DEADLINE_MISSED if due.cause else Kind.RESUME_REQUESTED
        after = fsm.apply(run, Event(kind, 2.0, data={"kind": due.cause}))
        assert (after.state is State.FAULT) == (due.cause is not None)
        assert deadline(after, 0.0, 0.0) != due, "the wait has ended"


def test_every_place_was_walked_to() -> None:
    """The walk comes by all places but the first and the last."""
    assert {place for place, *_ in lives()} == set(fsm.Place) - {fsm.Place.INIT, fsm.Place.TERM}


@pytest.mark.parametrize(
    ("event", "evidence"),
    [
        (Event(Kind.DEADLINE_MISSED, 3.0, data={"kind": "handshake_timeout", "after_s": 9, "error": "e"}),
         {"never_started": "handshake_timeout", "after_s": 9, "error": "e"}),
        (Event(Kind.SPAWN_FAILED, 3.0, data={"error": "no process"}),
         {"never_started": "spawn_failed", "error": "no process"}),
        (Event(Kind.LOST, 3.0, data={"kind": "rebooted"}), {"never_started": "rebooted"}),
        (Event(Kind.EXITED, 3.0, data={"fault": "handshake_timeout", "error": "not accepted"}),
         {"never_started": "handshake_timeout", "error": "not accepted"}),
    ],
)  # fmt: skip
def test_what_was_stopped_before_its_shim_came_is_cancelled(
    event: Event, evidence: dict[str, object]
) -> None:
    """Nothing had started, so what its user wanted is what happened; that no shim came is in the cause.
    A stop that comes after the fault changes nothing: it had failed by then."""
    run = fsm.apply(run_after(Kind.STOP_REQUESTED), event)
    end = fsm.conclude(run, 4.0, 1.0)
    assert end.data["cause"] == {"kind": "by_user", "who": "daemon", **evidence}
    assert fsm.apply(run, end).outcome == "cancelled"

    late = fsm.apply(run_after(), event)
    late = fsm.apply(late, fsm.breaking(late, 3.0)) if owed(late) is Action.BREAK else late
    late = fsm.apply(late, Event(Kind.STOP_REQUESTED, 3.5))
    assert fsm.conclude(late, 4.0, 1.0).data["outcome"] in ("failed", "interrupted")


def test_a_shim_that_came_to_be_stopped_starts_nothing() -> None:
    """It registered and then did nothing: cancelled, too, unless it says that it started something."""
    run = run_after(Kind.STOP_REQUESTED, Kind.REGISTERED, Kind.STOP_REQUESTED)
    missed = Event(Kind.DEADLINE_MISSED, 3.0, data={"kind": "unkillable"})
    assert fsm.conclude(fsm.apply(run, missed), 4.0, 1.0).data["outcome"] == "cancelled"
    started = fsm.apply(fsm.apply(run, Event(Kind.SPAWNED, 2.0, data={"pid": 9})), missed)
    assert fsm.conclude(started, 4.0, 1.0).data["outcome"] == "failed"
    late = fsm.apply(run_after(Kind.REGISTERED, Kind.STOP_REQUESTED), missed)
    assert fsm.conclude(late, 4.0, 1.0).data["outcome"] == "failed"


def test_what_is_left_of_a_tree_is_told_where_the_end_is_known() -> None:
    """A run whose worker has ended, and whose helper cannot be: its end stays exact, its reason is told."""
    run = replace(run_after(*WORKS, Kind.EXITED), can_checkpoint=False)
    run = fsm.apply(run, Event(Kind.UNKILLABLE, 2.0, data={"pids": [7, 8]}))
    assert (run.state, run.unkillable, run.fault) == (State.EXEC, True, None)
    shown = run_object(run, Progress(), "/x")
    assert "unkillable" in shown["reason"] and "pid 7, 8" in shown["reason"] and shown["cause"] is None
    ended = fsm.apply(run, fsm.conclude(run, 3.0, 1.0))
    assert (ended.outcome, run_object(ended, Progress(), "/x")["reason"]) == ("succeeded", None)
