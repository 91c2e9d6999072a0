"""What files tell of a run that a registry does not know, or knows less of: pure cases."""

from typing import Any

import pytest

from mosaicd.core.fsm import apply
from mosaicd.core.replay_rundir import (
    WHO,
    Claim,
    RunDirFacts,
    catch_up,
    newest_claim,
    replay,
    runs_that_lost_slots,
)
from mosaicd.core.run import Run
from mosaicd.protocol.records.attempt import Exit, Launch, Started
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, State, Want
from tests.store.building import AT, new_run, to_exec

LIVES = RunDirFacts(AT + 50, "boot-1")
OVER = RunDirFacts(AT + 50, "boot-1", is_over=True)
LOST_SLOTS = RunDirFacts(AT + 50, "boot-1", has_lost_slots=True)


def attempt(
    number: int = 1, *, exit: dict[str, Any] | None = None, held: bool = False, slot: int = 0
) -> AttemptFiles:
    """An attempt that began, and worked."""
    at = AT + number
    launch = Launch(nonce=f"{number:032x}", slots=(slot,), cpus=1, at=at, shim_pid=4711)
    started = Started(pid=4712, start_ticks=100, boot_id="boot-1", containment="none", at=at)
    ended = None if exit is None else Exit.from_json({"finished_at": AT + 20, **exit})
    return AttemptFiles(number, launch, started, ended, held)


def working(**fields: Any) -> Run:
    """A run in EXEC, in its first attempt, on slot 0."""
    run = new_run(**fields)
    for event in to_exec(0):
        run = apply(run, event)
    return run


def last(run: Run, *attempts: AttemptFiles, facts: RunDirFacts) -> Run:
    """The row after what it lacks."""
    steps = catch_up(run, attempts, facts)
    assert {event.who for _, event in steps} <= {WHO}
    assert [after.rev for after, _ in steps] == list(range(run.rev + 1, run.rev + 1 + len(steps)))
    return steps[-1][0] if steps else run


@pytest.mark.parametrize("exit", [None, {"exit_code": 0}, {"exit_code": 9}, {"signal": 9}])
@pytest.mark.parametrize("held", [False, True])
def test_what_reconcile_sees_to_is_left_to_it(exit: dict[str, Any] | None, held: bool) -> None:
    """An attempt that the row knows, whatever became of it: nothing is concluded without the launcher."""
    run = working(retries=3)
    assert catch_up(run, [attempt(exit=exit, held=held)], LIVES) == []
    assert catch_up(new_run(), [], LIVES) == []


def test_a_shim_that_is_not_gone_yet_hides_no_later_attempt() -> None:
    """An attempt is ordered when the tree of the one before is empty; its shim may still be on its way."""
    run = replay(new_run(retries=2), [attempt(1, held=True), attempt(2, held=True)], LIVES)[-1][0]
    assert (run.state, run.attempt, run.retries_used) == (State.EXEC, 2, 1)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_run_that_was_over_is_never_tried_again(retries: int) -> None:
    """Its environment is gone, so it had ended: with its exact end, retries or not."""
    run = last(working(retries=retries), attempt(exit={"exit_code": 9}), facts=OVER)
    assert (run.state, run.outcome, run.slots) == (State.TERM, Outcome.FAILED, ())
    assert run.cause == {"kind": CauseKind.EXIT_CODE, "exit_code": 9}
    run = last(working(retries=retries), attempt(exit={"exit_code": 0}), facts=OVER)
    assert run.outcome is Outcome.SUCCEEDED
    run = last(working(retries=retries), attempt(), facts=OVER)
    assert run.outcome is Outcome.INTERRUPTED
    run = last(new_run(held=True), facts=OVER)
    assert (run.state, run.outcome) == (State.TERM, Outcome.CANCELLED)


def test_a_later_attempt_is_gone_on_from() -> None:
    """Alive, it is the run's now, on its own slots, with what led there counted."""
    run = last(working(retries=3), attempt(exit={"exit_code": 9}), attempt(2, held=True, slot=1), facts=LIVES)
    assert (run.state, run.attempt, run.slots, run.retries_used) == (State.EXEC, 2, (1,), 1)
    run = last(new_run(held=True), attempt(held=True), facts=LIVES)
    assert (run.state, run.attempt, run.held) == (State.EXEC, 1, False)


@pytest.mark.parametrize(
    ("exit", "retries", "state", "outcome"),
    [
        ({"exit_code": 0}, 3, State.TERM, Outcome.SUCCEEDED),
        ({"signal": 9}, 0, State.TERM, Outcome.FAILED),
        ({"exit_code": 9, "stop": {"kind": "by_user", "who": "ada"}}, 3, State.TERM, Outcome.CANCELLED),
        (None, 0, State.TERM, Outcome.INTERRUPTED),
        (None, 3, State.INIT, None),
    ],
)
def test_a_run_that_lost_its_slots_has_ended(
    exit: dict[str, Any] | None, retries: int, state: State, outcome: Outcome | None
) -> None:
    """Another began on its slot since, so its tree was empty: it is what would have been concluded then."""
    run = last(working(retries=retries), attempt(exit=exit), facts=LOST_SLOTS)
    assert (run.state, run.outcome, run.slots) == (state, outcome, ())
    assert catch_up(working(), [attempt(held=True)], LOST_SLOTS) == [], "a living shim says otherwise"
    again = replay(new_run(retries=retries), [attempt(exit=exit)], LOST_SLOTS)[-1][0]
    assert (again.state, again.outcome, again.slots) == (state, outcome, ())


def test_what_was_released_stays_away() -> None:
    """A worker that left its slots because it was asked to is no success, and does not come back unasked."""
    run = last(working(can_checkpoint=True), attempt(exit={"exit_code": 0, "released": True}), facts=LIVES)
    assert (run.want, run.pause_mode, run.state) == (Want.PAUSE, PauseMode.RELEASE, State.EXEC)
    again = attempt(2, held=True)
    run = last(
        working(can_checkpoint=True), attempt(exit={"exit_code": 0, "released": True}), again, facts=LIVES
    )
    assert (run.want, run.state, run.attempt, run.retries_used) == (Want.RUN, State.EXEC, 2, 0)


def test_a_slot_is_its_newest_claimants() -> None:
    """Who had a slot before another is told by when they got it."""
    claims = [Claim("a", (0, 1), 5.0), Claim("b", (1,), 7.0), Claim("c", (2,), 1.0), Claim("d", (), 9.0)]
    assert runs_that_lost_slots(claims) == {"a"}
    assert runs_that_lost_slots(claims[:1]) == runs_that_lost_slots([]) == frozenset()
    found = newest_claim("x", [attempt(1), attempt(2, slot=3), AttemptFiles(3)])
    assert found == Claim("x", (3,), AT + 2)
    assert newest_claim("x", [AttemptFiles(1)]) is None
