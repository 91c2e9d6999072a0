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
    """Return a dispatched command after events of these kinds."""
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


def test_a_release_of_a_frozen_run_is_owed() -> None:
    """If a paused run is to release its slots, the daemon owes it the pause action."""
    run = run_after(*WORKS, Kind.PAUSED, Kind.PAUSE_REQUESTED)
    assert (run.state, owed(run)) == (State.PAUSE, Action.PAUSE)


def test_resume_ends_the_hold_of_a_released_run() -> None:
    """Resume of a held run that has released its slots ends the hold and queues the run."""
    run = run_after(*WORKS, Kind.PAUSE_REQUESTED, Kind.EXITED, Kind.RELEASED, Kind.HOLD)
    assert run.released and run.held
    run = fsm.apply(run, Event(Kind.RESUME_REQUESTED, 2.0))
    assert not run.held and owed(run) is Action.QUEUE


@pytest.mark.parametrize("kinds", [(Kind.REGISTERED,), WORKS, (*WORKS, Kind.PAUSED)])
def test_every_stop_has_a_deadline(kinds: tuple[Kind, ...]) -> None:
    """A run that lives some time after its grace period becomes unkillable."""
    due = deadline(run_after(*kinds, Kind.STOP_REQUESTED), 100.0, 100.0, 10.0)
    assert due is not None and (due.cause, due.due_mono) == (CauseKind.UNKILLABLE, 113.0)


def test_a_command_that_is_not_started_in_time_is_a_start_timeout() -> None:
    """The start timeout applies to plain commands too, until the command has started."""
    due = deadline(run_after(Kind.REGISTERED), 100.0, 100.0)
    assert due is not None and due.cause is CauseKind.START_TIMEOUT
    assert deadline(run_after(*WORKS), 100.0, 100.0) is None


#: Runs that wait for no process.
AT_REST = "the run waits for the queue or for its user"


def try_run_after(kinds: tuple[Kind, ...]) -> Run | None:
    try:
        return run_after(*kinds)
    except fsm.IllegalTransition:
        return None


def runs_in_every_place() -> dict[tuple[fsm.Place, Want, bool, bool], Run]:
    """Return a run for each reachable place, want, kind of pause, and exit known or not."""
    requests = (Kind.STOP_REQUESTED, Kind.PAUSE_REQUESTED, Kind.RESUME_REQUESTED)
    paths = [(), (Kind.REGISTERED,), WORKS, (*WORKS, Kind.PAUSED), (*WORKS, Kind.LOST)]
    paths.append((*WORKS, Kind.PAUSE_REQUESTED, Kind.EXITED, Kind.RELEASED))
    runs = {}
    for path, last in product(paths, ((), (Kind.EXITED,))):
        for asked in ((), *((request,) for request in requests), requests[1:]):
            run = try_run_after((*path, *asked, *last))
            if run is not None and not run.is_final:
                is_release = run.pause_mode is PauseMode.RELEASE
                runs[fsm.place(run), run.want, is_release, run.exit is not None] = run
                frozen = replace(run, pause_mode=PauseMode.FREEZE)
                runs[fsm.place(run), run.want, False, run.exit is not None] = frozen
    return runs


@pytest.mark.parametrize(
    "run", runs_in_every_place().values(), ids=lambda run: f"{fsm.place(run)}-{run.want}-{owed(run)}"
)
def test_every_wait_of_a_run_with_slots_ends(run: Run) -> None:
    """A run with slots has a reason, and an action that is repeated or a deadline with a legal event."""
    action, due = owed(run), deadline(run, 0.0, 0.0)
    reason = run_object(run, Progress(), "/x")["reason"] or run_object(run, Progress(), "/x")["cause"]
    if not run.is_holding:
        assert action in (Action.QUEUE, Action.WITHDRAW, None) and due is None, AT_REST
    elif action in (Action.EMPTY_TREE, Action.BREAK):
        assert due is None and reason, "the dispatcher repeats the check until the tree is empty"
        assert fsm.is_legal(run, Kind.UNKILLABLE), "the run can become unkillable"
    elif action is None:
        assert run.state is not State.EXEC or run.want is Want.RUN
        assert run.state is not State.PAUSE or run.want is Want.PAUSE
    else:
        assert due is not None and reason
        kind = Kind.DEADLINE_MISSED if due.cause else Kind.RESUME_REQUESTED
        after = fsm.apply(run, Event(kind, 2.0, data={"kind": due.cause}))
        assert (after.state is State.FAULT) == (due.cause is not None)
        assert deadline(after, 0.0, 0.0) != due, "the wait has not ended"


def test_the_runs_cover_every_place() -> None:
    """runs_in_every_place() has a run in every place but INIT and TERM."""
    assert {place for place, *_ in runs_in_every_place()} == set(fsm.Place) - {fsm.Place.INIT, fsm.Place.TERM}


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
def test_a_run_that_is_stopped_before_its_worker_started_is_cancelled(
    event: Event, evidence: dict[str, object]
) -> None:
    """A stop before the fault makes the outcome cancelled, and the fault is in the cause.

    A stop after the fault does not change the outcome.
    """
    run = fsm.apply(run_after(Kind.STOP_REQUESTED), event)
    end = fsm.conclude(run, 4.0, 1.0)
    assert end.data["cause"] == {"kind": "by_user", "who": "daemon", **evidence}
    assert fsm.apply(run, end).outcome == "cancelled"

    late = fsm.apply(run_after(), event)
    late = fsm.apply(late, fsm.broke_event(late, 3.0)) if owed(late) is Action.BREAK else late
    late = fsm.apply(late, Event(Kind.STOP_REQUESTED, 3.5))
    assert fsm.conclude(late, 4.0, 1.0).data["outcome"] in ("failed", "interrupted")


def test_an_unkillable_shim_that_started_no_worker_is_cancelled() -> None:
    """If the stop came before the register and no worker was spawned, the run is cancelled, else failed."""
    run = run_after(Kind.STOP_REQUESTED, Kind.REGISTERED, Kind.STOP_REQUESTED)
    missed = Event(Kind.DEADLINE_MISSED, 3.0, data={"kind": "unkillable"})
    assert fsm.conclude(fsm.apply(run, missed), 4.0, 1.0).data["outcome"] == "cancelled"
    started = fsm.apply(fsm.apply(run, Event(Kind.SPAWNED, 2.0, data={"pid": 9})), missed)
    assert fsm.conclude(started, 4.0, 1.0).data["outcome"] == "failed"
    late = fsm.apply(run_after(Kind.REGISTERED, Kind.STOP_REQUESTED), missed)
    assert fsm.conclude(late, 4.0, 1.0).data["outcome"] == "failed"


def test_the_reason_of_an_ended_worker_has_the_remaining_processes() -> None:
    """If processes of an ended worker are unkillable, the reason has their pids; the outcome is exact."""
    run = replace(run_after(*WORKS, Kind.EXITED), can_checkpoint=False)
    run = fsm.apply(run, Event(Kind.UNKILLABLE, 2.0, data={"pids": [7, 8]}))
    assert (run.state, run.unkillable, run.fault) == (State.EXEC, True, None)
    shown = run_object(run, Progress(), "/x")
    assert "unkillable" in shown["reason"] and "pid 7, 8" in shown["reason"] and shown["cause"] is None
    ended = fsm.apply(run, fsm.conclude(run, 3.0, 1.0))
    assert (ended.outcome, run_object(ended, Progress(), "/x")["reason"]) == ("succeeded", None)
