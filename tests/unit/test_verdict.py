"""Whose word decides the end, and what a fault comes to: tables by hand, from the lifecycle's rules."""

from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply, breaking, conclude, owed, place
from mosaicd.core.run import INFRASTRUCTURE_CAUSES, Run
from mosaicd.core.verdict import verdict
from mosaicd.protocol.states import CauseKind, Outcome, RunKind
from tests.unit.lives import AT, INFRASTRUCTURE, exited, happening, new_run, run_in

COMMAND, WORKER = RunKind.COMMAND, RunKind.WORKER


def stop(kind: str, **more: Any) -> dict[str, Any]:
    return {"stop": {"kind": kind, "who": "ada", **more}}


def said(word: str) -> dict[str, Any]:
    return {"last_word": f"run_{word}"}


#: who ran, exit record -> outcome, kind of the cause
WORDS: list[tuple[RunKind, dict[str, Any], str, str | None]] = [
    # a plain command: how the process ended
    (COMMAND, {"exit_code": 0}, "succeeded", None),
    (COMMAND, {"exit_code": 7}, "failed", "exit_code"),
    (COMMAND, {"exit_code": 200}, "failed", "exit_code"),
    (COMMAND, {"signal": 11, "core_dumped": True}, "failed", "signal"),
    (COMMAND, {"signal": 15}, "failed", "signal"),
    # ... and what it prints decides nothing
    (COMMAND, {"exit_code": 0, **said("failed")}, "succeeded", None),
    (COMMAND, {"exit_code": 3, **said("completed")}, "failed", "exit_code"),
    (COMMAND, {"exit_code": 0, **said("cancelled")}, "succeeded", None),
    # a worker: its own last word, whatever the code
    (WORKER, {"exit_code": 0}, "succeeded", None),
    (WORKER, {"exit_code": 1}, "failed", "exit_code"),
    (WORKER, {"exit_code": 0, **said("completed")}, "succeeded", None),
    (WORKER, {"exit_code": 1, **said("completed")}, "succeeded", "exit_code"),
    (WORKER, {"signal": 11, **said("completed")}, "succeeded", "signal"),
    (WORKER, {"exit_code": 0, **said("failed"), "error": "nan"}, "failed", "worker_failed"),
    (WORKER, {"exit_code": 1, **said("failed")}, "failed", "worker_failed"),
    (WORKER, {"exit_code": 0, **said("cancelled")}, "cancelled", "by_user"),
    (WORKER, {"exit_code": 143, **said("cancelled")}, "cancelled", "by_user"),
    # a stop or limit that the shim had begun: before anything else
    *[
        (kind, {**how, **stop(why)}, outcome, why)
        for kind in (COMMAND, WORKER)
        for how in ({"exit_code": 0}, {"exit_code": 1}, {"signal": 9}, {"exit_code": 0, **said("completed")},
                    {"exit_code": 1, **said("failed")})
        for why, outcome in (("by_user", "cancelled"), ("time_limit", "timeout"), ("step_limit", "succeeded"),
                             ("preempted", "interrupted"), ("heartbeat_lost", "failed"))
    ],
    # what never ran
    (COMMAND, {"fault": "spawn_failed", "error": "ENOENT"}, "failed", "spawn_failed"),
    (WORKER, {"fault": "handshake_timeout"}, "failed", "handshake_timeout"),
    (WORKER, {"fault": "oom", "signal": 9, **said("completed")}, "failed", "oom"),
    (COMMAND, {**stop("by_user")}, "cancelled", "by_user"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "exit", "outcome", "cause"), WORDS)
def test_whose_word_decides(kind: RunKind, exit: dict[str, Any], outcome: str, cause: str | None) -> None:
    """Outcome and cause are exact, from the exit record and the kind of run alone."""
    found, why = verdict(exited(exit, kind=kind))
    assert found == outcome
    assert (why or {}).get("kind") == cause


def test_the_cause_carries_the_evidence() -> None:
    """Code or signal, who and why, and whether it had to be forced."""
    _, cause = verdict(exited({"signal": 9, **stop("by_user", reason="enough", forced=True)}))
    assert cause == {"kind": "by_user", "who": "ada", "reason": "enough", "forced": True, "signal": 9}
    _, cause = verdict(exited({"exit_code": 0, **said("failed"), "error": "loss is nan"}, kind=WORKER))
    assert cause == {"kind": "worker_failed", "error": "loss is nan", "exit_code": 0}
    _, cause = verdict(exited({"signal": 11, "core_dumped": True}))
    assert cause == {"kind": "signal", "signal": 11, "core_dumped": True}


def ended(run: Run) -> Run:
    """Carry a run with an exit, or in FAULT, to where it comes when its tree is empty."""
    if owed(run) == "break":
        run = apply(run, breaking(run, AT))
    return apply(run, conclude(run, AT, 10.0))


@pytest.mark.parametrize(("kind", "exit", "outcome", "cause"), WORDS)
def test_the_end_is_the_verdict(kind: RunKind, exit: dict[str, Any], outcome: str, cause: str | None) -> None:
    """Through FAULT or not, without retries a run ends with what its exit record speaks for."""
    run = ended(exited(exit, kind=kind))
    assert run.is_final
    assert run.outcome == outcome
    assert (run.cause or {}).get("kind") == cause


#: cause of a fault -> the outcome without a retry
FAULTS = [(kind, "interrupted" if kind in ("shim_lost", "rebooted") else "failed") for kind in CauseKind]


@pytest.mark.parametrize(("cause", "outcome"), FAULTS)
def test_a_fault_without_a_retry(cause: CauseKind, outcome: str) -> None:
    """shim_lost and rebooted end interrupted, all others failed; the cause is the fault's."""
    run = ended(apply(run_in(Place.EXEC), happening(Kind.LOST, kind=cause)))
    assert (run.outcome, (run.cause or {})["kind"]) == (outcome, cause)


@pytest.mark.parametrize("cause", list(CauseKind))
def test_what_is_retried_by_default(cause: CauseKind) -> None:
    """The machine's faults are worth another attempt, the run's own are not."""
    run = ended(apply(run_in(Place.EXEC, retries=1), happening(Kind.LOST, kind=cause)))
    assert place(run) is (Place.INIT if cause in INFRASTRUCTURE else Place.TERM)
    assert set(INFRASTRUCTURE) == set(INFRASTRUCTURE_CAUSES)


def test_retries_run_out() -> None:
    """A run with one retry is queued once, after its back-off, and then ends."""
    run = ended(apply(run_in(Place.EXEC, retries=1), happening(Kind.LOST)))
    assert (place(run), run.not_before, run.retries_used) == (Place.INIT, AT + 10, 1)
    run = apply(run, happening(Kind.DISPATCHED, attempt=2))
    run = ended(apply(run, happening(Kind.LOST)))
    assert (run.outcome, run.attempt) == ("interrupted", 2)


def test_retry_on_chooses_the_causes() -> None:
    """The owner's list replaces the default one."""
    fields = {"retries": 1, "retry_on": (CauseKind.EXIT_CODE,)}
    assert place(ended(exited({"exit_code": 1}, **fields))) is Place.INIT
    assert place(ended(exited({"signal": 9}, **fields))) is Place.TERM
    assert place(ended(apply(run_in(Place.EXEC, **fields), happening(Kind.LOST)))) is Place.TERM


def test_a_stop_beats_a_retry() -> None:
    """A faulted run whose owner wants it gone is not queued again; one that waits is withdrawn."""
    run = apply(run_in(Place.EXEC, retries=1), happening(Kind.LOST))
    assert ended(apply(run, happening(Kind.STOP_REQUESTED))).outcome is Outcome.INTERRUPTED
    waiting = apply(ended(run), happening(Kind.STOP_REQUESTED))
    assert owed(waiting) == "withdraw"
    assert apply(waiting, happening(Kind.WITHDRAWN)).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("wanted", [False, True])
def test_a_command_that_dies_of_our_stop_is_no_fault(wanted: bool) -> None:
    """Killed by our TERM: from EXEC straight to TERM, cancelled, whether or not the request was known."""
    run = run_in(Place.EXEC)
    if wanted:
        run = apply(run, happening(Kind.STOP_REQUESTED))
    run = apply(run, happening(Kind.EXITED, exit_code=None, signal=15, **stop("by_user")))
    assert owed(run) == "empty_tree"
    assert ended(run).outcome is Outcome.CANCELLED


def test_an_end_before_a_late_stop_is_the_runs_own() -> None:
    """A stop that came when the process had already ended changes neither outcome nor cause."""
    run = apply(run_in(Place.EXEC), happening(Kind.STOP_REQUESTED))
    assert ended(apply(run, happening(Kind.EXITED))).outcome is Outcome.SUCCEEDED
    run = ended(apply(run, happening(Kind.EXITED, exit_code=7)))
    assert (run.outcome, (run.cause or {})["kind"]) == (Outcome.FAILED, "exit_code")


# --- release -------------------------------------------------------------------------------------


def left(**fields: Any) -> Run:
    run = apply(
        run_in(Place.EXEC, can_checkpoint=True, **fields), happening(Kind.PAUSE_REQUESTED, mode="release")
    )
    return apply(run, happening(Kind.EXITED, released=True, steps=500))


def test_a_release_is_no_end() -> None:
    """A worker that left its slots on request waits in PAUSE, released; never finished."""
    run = ended(left())
    assert place(run) is Place.RELEASED
    assert run.steps_before == 500


def test_a_release_that_is_resumed_meanwhile_still_comes_back() -> None:
    """Resume while the tree is swept: released, and then queued at once."""
    run = ended(apply(left(), happening(Kind.RESUME_REQUESTED)))
    assert (place(run), owed(run)) == (Place.RELEASED, "queue")


def test_only_who_can_come_back_is_released() -> None:
    """A shim's word is not enough: without checkpoints, or before it worked, an exit is an end."""
    assert ended(exited({"exit_code": 0, "released": True})).is_final
    early = apply(run_in(Place.HSHK, can_checkpoint=True), happening(Kind.EXITED, released=True))
    assert ended(early).is_final


@pytest.mark.parametrize(
    ("event", "outcome", "cause"),
    [
        (happening(Kind.STOP_REQUESTED), "cancelled", "by_user"),
        (happening(Kind.LIMIT_REACHED), "timeout", "time_limit"),
    ],
)  # fmt: skip
def test_a_stop_while_it_leaves_is_a_stop(event: Any, outcome: str, cause: str) -> None:
    """A worker that left to come back and is then not wanted did not succeed: it was stopped on the way."""
    run = ended(apply(left(), event))
    assert (run.outcome, (run.cause or {}).get("kind")) == (outcome, cause)


# --- where no end is due -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", [Place.INIT, Place.HSHK, Place.RDY, Place.EXEC, Place.PAUSE, Place.RELEASED, Place.TERM]
)
def test_no_end_without_an_exit(where: Place) -> None:
    """Concluding a run that neither exited nor broke is a mistake of ours, not an outcome."""
    run = run_in(where)
    if run.exit is None:
        with pytest.raises(ValueError, match="has not exited"):
            conclude(run, AT, 0.0)


def test_a_waiting_run_has_not_exited() -> None:
    """Evidence of an earlier attempt does not end the next one."""
    assert new_run().exit is run_in(Place.RELEASED).exit is None
