"""The events that a run directory adds to a run that is missing or behind in the registry."""

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
    """Return the files of an attempt that started its worker."""
    at = AT + number
    launch = Launch(nonce=f"{number:032x}", slots=(slot,), cpus=1, at=at, shim_pid=4711)
    started = Started(pid=4712, start_ticks=100, boot_id="boot-1", containment="none", at=at)
    ended = None if exit is None else Exit.from_json({"finished_at": AT + 20, **exit})
    return AttemptFiles(number, launch, started, ended, held)


def working(**fields: Any) -> Run:
    """Return a run in EXEC, in its first attempt, on slot 0."""
    run = new_run(**fields)
    for event in to_exec(0):
        run = apply(run, event)
    return run


def caught_up(run: Run, *attempts: AttemptFiles, facts: RunDirFacts) -> Run:
    """Return the run after the events that its row lacks."""
    steps = catch_up(run, attempts, facts)
    assert {event.who for _, event in steps} <= {WHO}
    assert [after.rev for after, _ in steps] == list(range(run.rev + 1, run.rev + 1 + len(steps)))
    return steps[-1][0] if steps else run


@pytest.mark.parametrize("exit", [None, {"exit_code": 0}, {"exit_code": 9}, {"signal": 9}])
@pytest.mark.parametrize("held", [False, True])
def test_the_current_attempt_is_left_to_reconcile(exit: dict[str, Any] | None, held: bool) -> None:
    """For an attempt that the row knows no event follows, because reconcile asks the launcher first."""
    run = working(retries=3)
    assert catch_up(run, [attempt(exit=exit, held=held)], LIVES) == []
    assert catch_up(new_run(), [], LIVES) == []


def test_a_later_attempt_counts_although_an_earlier_shim_lives() -> None:
    """The shim of an earlier attempt may still live when the next attempt runs."""
    run = replay(new_run(retries=2), [attempt(1, held=True), attempt(2, held=True)], LIVES)[-1][0]
    assert (run.state, run.attempt, run.retries_used) == (State.EXEC, 2, 1)


@pytest.mark.parametrize("retries", [0, 3])
def test_an_ended_run_is_never_retried(retries: int) -> None:
    """A run without its environment file had ended; it gets its exact outcome, also if it has retries."""
    run = caught_up(working(retries=retries), attempt(exit={"exit_code": 9}), facts=OVER)
    assert (run.state, run.outcome, run.slots) == (State.TERM, Outcome.FAILED, ())
    assert run.cause == {"kind": CauseKind.EXIT_CODE, "exit_code": 9}
    run = caught_up(working(retries=retries), attempt(exit={"exit_code": 0}), facts=OVER)
    assert run.outcome is Outcome.SUCCEEDED
    run = caught_up(working(retries=retries), attempt(), facts=OVER)
    assert run.outcome is Outcome.INTERRUPTED
    run = caught_up(new_run(held=True), facts=OVER)
    assert (run.state, run.outcome) == (State.TERM, Outcome.CANCELLED)


def test_a_living_later_attempt_becomes_the_current_one() -> None:
    """The run continues in that attempt, with its slots, and the retry is counted."""
    run = caught_up(
        working(retries=3), attempt(exit={"exit_code": 9}), attempt(2, held=True, slot=1), facts=LIVES
    )
    assert (run.state, run.attempt, run.slots, run.retries_used) == (State.EXEC, 2, (1,), 1)
    run = caught_up(new_run(held=True), attempt(held=True), facts=LIVES)
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
def test_a_run_whose_slots_were_given_away_has_ended(
    exit: dict[str, Any] | None, retries: int, state: State, outcome: Outcome | None
) -> None:
    """If another run started later on its slot, the process tree was empty, so the run is concluded."""
    run = caught_up(working(retries=retries), attempt(exit=exit), facts=LOST_SLOTS)
    assert (run.state, run.outcome, run.slots) == (state, outcome, ())
    assert catch_up(working(), [attempt(held=True)], LOST_SLOTS) == [], (
        "a living shim proves that the run has not ended"
    )
    again = replay(new_run(retries=retries), [attempt(exit=exit)], LOST_SLOTS)[-1][0]
    assert (again.state, again.outcome, again.slots) == (state, outcome, ())


def test_a_released_exit_is_a_pause_and_no_success() -> None:
    """After a released exit the want is pause with mode release; a later attempt sets the want to run."""
    run = caught_up(
        working(can_checkpoint=True), attempt(exit={"exit_code": 0, "released": True}), facts=LIVES
    )
    assert (run.want, run.pause_mode, run.state) == (Want.PAUSE, PauseMode.RELEASE, State.EXEC)
    again = attempt(2, held=True)
    run = caught_up(
        working(can_checkpoint=True), attempt(exit={"exit_code": 0, "released": True}), again, facts=LIVES
    )
    assert (run.want, run.state, run.attempt, run.retries_used) == (Want.RUN, State.EXEC, 2, 0)


def test_a_slot_belongs_to_its_newest_claim() -> None:
    """Of two runs with the same slot, the run with the earlier claim has lost its slots."""
    claims = [Claim("a", (0, 1), 5.0), Claim("b", (1,), 7.0), Claim("c", (2,), 1.0), Claim("d", (), 9.0)]
    assert runs_that_lost_slots(claims) == {"a"}
    assert runs_that_lost_slots(claims[:1]) == runs_that_lost_slots([]) == frozenset()
    newest = newest_claim("x", [attempt(1), attempt(2, slot=3), AttemptFiles(3)])
    assert newest == Claim("x", (3,), AT + 2)
    assert newest_claim("x", [AttemptFiles(1)]) is None
