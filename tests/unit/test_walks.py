"""Random walks over the lifecycle: invariants that hold after every event."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mosaicd.core.fsm import (
    TABLE,
    Action,
    Event,
    IllegalTransition,
    Kind,
    Place,
    apply,
    broke_event,
    conclude,
    owed,
    place,
    replay,
)
from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, RunKind, State, Want
from tests.unit.lifecycle import AT, make_event, new_run, run_in

EXITS = st.fixed_dictionaries(
    {
        "exit_code": st.sampled_from([None, 0, 1, 255]),
        "signal": st.sampled_from([None, 9, 15]),
        "released": st.booleans(),
        "last_word": st.sampled_from([None, "run_completed", "run_failed", "run_cancelled"]),
        "stop": st.none() | st.fixed_dictionaries({"kind": st.sampled_from(list(CauseKind))}),
        "fault": st.none() | st.sampled_from(["spawn_failed", "oom"]),
        "steps": st.none() | st.integers(0, 100),
    }
)
RUNS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(RunKind)),
        "can_checkpoint": st.booleans(),
        "retries": st.integers(0, 2),
        "retry_on": st.sampled_from([(), (CauseKind.SHIM_LOST,), tuple(CauseKind)]),
    }
)
STEPS = st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 99), EXITS), max_size=40)


def step(run: Run, kind: Kind, number: int, exit: dict[str, Any]) -> Event:
    """Return an event for `run`; ends come from conclude(), as in the daemon."""
    action = owed(run)
    if action is Action.EMPTY_TREE and number % 3:
        return conclude(run, AT + number, 10.0)
    if action is Action.BREAK and number % 3:
        return broke_event(run, AT + number)
    legal = sorted(TABLE[place(run)])
    if number % 5 and legal and kind not in legal:
        kind = legal[number % len(legal)]
    if kind is Kind.WITHDRAWN and run.want is not Want.STOP:
        kind = Kind.STOP_REQUESTED  # only a run with want=stop is withdrawn
    data: dict[str, Any] = {}
    if kind is Kind.EXITED:
        data = exit
    elif kind is Kind.DISPATCHED:
        data = {"attempt": run.attempt + 1, "slots": [number % 4]}
    elif kind is Kind.LOST:
        data = {"kind": list(CauseKind)[number % len(CauseKind)]}
    return make_event(kind, AT + number, **data)


def check(before: Run, after: Run) -> None:
    """Check the invariants between a run before and after one event."""
    assert after.rev == before.rev + 1
    assert not before.is_final
    assert (after.run_id, after.digest, after.owner_uid) == (before.run_id, before.digest, before.owner_uid)
    assert (after.outcome is not None) == (after.state is State.TERM) == (after.finished_at is not None)
    assert bool(after.slots) == after.is_holding
    assert after.is_waiting == (place(after) in (Place.INIT, Place.RELEASED))
    if after.is_waiting:
        assert {after.exit is None, after.pid is None, after.shim_pid is None, after.fault is None} == {True}
    if after.state is State.FAULT:
        assert (after.fault or {}).get("kind")
    if after.outcome is not None and after.outcome != "succeeded":
        assert (after.cause or {}).get("kind")
    assert after.attempt >= before.attempt
    assert after.steps_before >= before.steps_before
    assert Run.from_dict(after.to_dict()) == after


def check_owed(run: Run) -> None:
    """Check that the owed action can be carried out, and that its event leads to another place."""
    action = owed(run)
    assert owed(run) is action
    match action:
        case None:
            assert run.state not in (State.INIT, State.HSHK, State.FAULT)
            assert run.want is not Want.STOP or run.is_final
        case Action.EMPTY_TREE:
            end = conclude(run, AT, 1.0)
            assert place(apply(run, end)) in (Place.TERM, Place.INIT, Place.RELEASED)
        case Action.BREAK:
            assert apply(run, broke_event(run, AT)).state is State.FAULT
        case Action.WITHDRAW:
            assert apply(run, make_event(Kind.WITHDRAWN)).outcome == "cancelled"
        case Action.QUEUE:
            assert apply(run, make_event(Kind.DISPATCHED)).state is State.HSHK
        case _:
            assert run.is_holding
            assert run.exit is None


@settings(max_examples=400, deadline=None, database=None)
@given(RUNS, STEPS)
def test_random_walks_keep_the_invariants(
    fields: dict[str, Any], steps: list[tuple[Kind, int, dict[str, Any]]]
) -> None:
    """For events in any order the invariants hold, illegal events change nothing, and replay agrees."""
    run = new_run(**fields)
    events = [make_event(Kind.SUBMITTED, run=run.to_dict())]
    check_owed(run)
    for kind, number, exit in steps:
        event = step(run, kind, number, exit)
        if event.kind not in TABLE[place(run)]:
            copy = Run.from_dict(run.to_dict())
            try:
                apply(run, event)
            except IllegalTransition:
                assert run == copy
                continue
            raise AssertionError(f"{event.kind} was accepted in {place(run)}")
        after = apply(run, event)
        check(run, after)
        check_owed(after)
        events.append(event)
        run = after
    assert replay(events) == run


@settings(max_examples=200, deadline=None, database=None)
@given(
    RUNS,
    EXITS,
    st.sampled_from([Place.HSHK, Place.RDY, Place.EXEC, Place.PAUSE]),
    st.sampled_from(list(Want)),
)
def test_every_exit_leads_to_an_end_a_retry_or_a_release(
    fields: dict[str, Any], exit: dict[str, Any], where: Place, want: Want
) -> None:
    """After any exit report, the owed actions end, retry or release the run."""
    run = run_in(where, **fields)
    request = {
        Want.RUN: Kind.RESUME_REQUESTED,
        Want.PAUSE: Kind.PAUSE_REQUESTED,
        Want.STOP: Kind.STOP_REQUESTED,
    }[want]
    run = apply(apply(run, make_event(request)), Event(Kind.EXITED, AT, "shim", exit))
    if owed(run) is Action.BREAK:
        run = apply(run, broke_event(run, AT))
    assert owed(run) is Action.EMPTY_TREE
    after = apply(run, conclude(run, AT, 1.0))
    assert place(after) in (Place.TERM, Place.INIT, Place.RELEASED)
    assert after.slots == ()
    if want is Want.STOP:
        assert after.is_final
    if place(after) is Place.RELEASED:
        assert after.can_checkpoint
