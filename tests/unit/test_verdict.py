"""Outcome and cause of a run's end, and the retry after a fault: tables by hand."""

from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply, broke_event, conclude, owed, place
from mosaicd.core.run import INFRASTRUCTURE_CAUSES, Run
from mosaicd.core.verdict import verdict
from mosaicd.protocol.states import CauseKind, Outcome, RunKind
from tests.unit.lifecycle import AT, INFRASTRUCTURE, exited, make_event, new_run, run_in

COMMAND, WORKER = RunKind.COMMAND, RunKind.WORKER


def stop(kind: str, **more: Any) -> dict[str, Any]:
    return {"stop": {"kind": kind, "who": "ada", **more}}


def last_word(word: str) -> dict[str, Any]:
    return {"last_word": f"run_{word}"}


#: kind of run, exit record -> outcome, kind of the cause
EXITS: list[tuple[RunKind, dict[str, Any], str, str | None]] = [
    # a plain command: the exit code or signal decides
    (COMMAND, {"exit_code": 0}, "succeeded", None),
    (COMMAND, {"exit_code": 7}, "failed", "exit_code"),
    (COMMAND, {"exit_code": 200}, "failed", "exit_code"),
    (COMMAND, {"signal": 11, "core_dumped": True}, "failed", "signal"),
    (COMMAND, {"signal": 15}, "failed", "signal"),
    # a plain command: its output does not count
    (COMMAND, {"exit_code": 0, **last_word("failed")}, "succeeded", None),
    (COMMAND, {"exit_code": 3, **last_word("completed")}, "failed", "exit_code"),
    (COMMAND, {"exit_code": 0, **last_word("cancelled")}, "succeeded", None),
    # a worker: its last word wins over the exit code
    (WORKER, {"exit_code": 0}, "succeeded", None),
    (WORKER, {"exit_code": 1}, "failed", "exit_code"),
    (WORKER, {"exit_code": 0, **last_word("completed")}, "succeeded", None),
    (WORKER, {"exit_code": 1, **last_word("completed")}, "succeeded", "exit_code"),
    (WORKER, {"signal": 11, **last_word("completed")}, "succeeded", "signal"),
    (WORKER, {"exit_code": 0, **last_word("failed"), "error": "nan"}, "failed", "worker_failed"),
    (WORKER, {"exit_code": 1, **last_word("failed")}, "failed", "worker_failed"),
    (WORKER, {"exit_code": 0, **last_word("cancelled")}, "cancelled", "by_user"),
    (WORKER, {"exit_code": 143, **last_word("cancelled")}, "cancelled", "by_user"),
    # a stop or limit that the shim began wins over everything
    *[
        (kind, {**how, **stop(why)}, outcome, why)
        for kind in (COMMAND, WORKER)
        for how in ({"exit_code": 0}, {"exit_code": 1}, {"signal": 9},
                    {"exit_code": 0, **last_word("completed")},
                    {"exit_code": 1, **last_word("failed")})
        for why, outcome in (("by_user", "cancelled"), ("time_limit", "timeout"), ("step_limit", "succeeded"),
                             ("preempted", "interrupted"), ("heartbeat_lost", "failed"))
    ],
    # runs that never worked
    (COMMAND, {"fault": "spawn_failed", "error": "ENOENT"}, "failed", "spawn_failed"),
    (WORKER, {"fault": "handshake_timeout"}, "failed", "handshake_timeout"),
    (WORKER, {"fault": "oom", "signal": 9, **last_word("completed")}, "failed", "oom"),
    (COMMAND, {**stop("by_user")}, "cancelled", "by_user"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "exit", "outcome", "cause"), EXITS)
def test_outcome_and_cause_follow_from_the_exit_record(
    kind: RunKind, exit: dict[str, Any], outcome: str, cause: str | None
) -> None:
    """The exit record and the kind of run decide outcome and cause."""
    outcome_found, why = verdict(exited(exit, kind=kind))
    assert outcome_found == outcome
    assert (why or {}).get("kind") == cause


def test_the_cause_carries_the_evidence() -> None:
    """The cause has exit code or signal, user and reason of a stop, and whether the stop was forced."""
    _, cause = verdict(exited({"signal": 9, **stop("by_user", reason="enough", forced=True)}))
    assert cause == {"kind": "by_user", "who": "ada", "reason": "enough", "forced": True, "signal": 9}
    _, cause = verdict(exited({"exit_code": 0, **last_word("failed"), "error": "loss is nan"}, kind=WORKER))
    assert cause == {"kind": "worker_failed", "error": "loss is nan", "exit_code": 0}
    _, cause = verdict(exited({"signal": 11, "core_dumped": True}))
    assert cause == {"kind": "signal", "signal": 11, "core_dumped": True}


def ended(run: Run) -> Run:
    """Return the run, which has an exit or is in FAULT, after its process tree is empty."""
    if owed(run) == "break":
        run = apply(run, broke_event(run, AT))
    return apply(run, conclude(run, AT, 10.0))


@pytest.mark.parametrize(("kind", "exit", "outcome", "cause"), EXITS)
def test_a_run_without_retries_ends_with_the_verdict(
    kind: RunKind, exit: dict[str, Any], outcome: str, cause: str | None
) -> None:
    """Without retries, a run ends with the outcome and cause of its exit record, also through FAULT."""
    run = ended(exited(exit, kind=kind))
    assert run.is_final
    assert run.outcome == outcome
    assert (run.cause or {}).get("kind") == cause


#: cause of a fault -> the outcome without a retry
FAULTS = [(kind, "interrupted" if kind in ("shim_lost", "rebooted") else "failed") for kind in CauseKind]


@pytest.mark.parametrize(("cause", "outcome"), FAULTS)
def test_the_outcome_of_a_fault_without_a_retry(cause: CauseKind, outcome: str) -> None:
    """shim_lost and rebooted end as interrupted, other faults as failed; the fault is the cause."""
    run = ended(apply(run_in(Place.EXEC), make_event(Kind.LOST, kind=cause)))
    assert (run.outcome, (run.cause or {})["kind"]) == (outcome, cause)


@pytest.mark.parametrize("cause", list(CauseKind))
def test_only_infrastructure_faults_are_retried_by_default(cause: CauseKind) -> None:
    """A run with retries is queued again after a fault of the machine and ends after other faults."""
    run = ended(apply(run_in(Place.EXEC, retries=1), make_event(Kind.LOST, kind=cause)))
    assert place(run) is (Place.INIT if cause in INFRASTRUCTURE else Place.TERM)
    assert set(INFRASTRUCTURE) == set(INFRASTRUCTURE_CAUSES)


def test_a_run_ends_after_its_last_retry() -> None:
    """A run with one retry is queued once, after its back-off, and then ends."""
    run = ended(apply(run_in(Place.EXEC, retries=1), make_event(Kind.LOST)))
    assert (place(run), run.not_before, run.retries_used) == (Place.INIT, AT + 10, 1)
    run = apply(run, make_event(Kind.DISPATCHED, attempt=2))
    run = ended(apply(run, make_event(Kind.LOST)))
    assert (run.outcome, run.attempt) == ("interrupted", 2)


def test_retry_on_chooses_the_causes() -> None:
    """retry_on replaces the default list of causes."""
    fields = {"retries": 1, "retry_on": (CauseKind.EXIT_CODE,)}
    assert place(ended(exited({"exit_code": 1}, **fields))) is Place.INIT
    assert place(ended(exited({"signal": 9}, **fields))) is Place.TERM
    assert place(ended(apply(run_in(Place.EXEC, **fields), make_event(Kind.LOST)))) is Place.TERM


def test_a_stop_beats_a_retry() -> None:
    """A stop prevents the retry of a faulted run, and withdraws a run that waits for its retry."""
    run = apply(run_in(Place.EXEC, retries=1), make_event(Kind.LOST))
    assert ended(apply(run, make_event(Kind.STOP_REQUESTED))).outcome is Outcome.INTERRUPTED
    waiting = apply(ended(run), make_event(Kind.STOP_REQUESTED))
    assert owed(waiting) == "withdraw"
    assert apply(waiting, make_event(Kind.WITHDRAWN)).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("wanted", [False, True])
def test_a_command_that_is_ended_by_a_stop_is_no_fault(wanted: bool) -> None:
    """A command that SIGTERM of the shim ended is cancelled, also if the daemon did not know the request."""
    run = run_in(Place.EXEC)
    if wanted:
        run = apply(run, make_event(Kind.STOP_REQUESTED))
    run = apply(run, make_event(Kind.EXITED, exit_code=None, signal=15, **stop("by_user")))
    assert owed(run) == "empty_tree"
    assert ended(run).outcome is Outcome.CANCELLED


def test_a_stop_after_the_exit_does_not_change_the_outcome() -> None:
    """If the process had ended before the stop, outcome and cause follow from its exit."""
    run = apply(run_in(Place.EXEC), make_event(Kind.STOP_REQUESTED))
    assert ended(apply(run, make_event(Kind.EXITED))).outcome is Outcome.SUCCEEDED
    run = ended(apply(run, make_event(Kind.EXITED, exit_code=7)))
    assert (run.outcome, (run.cause or {})["kind"]) == (Outcome.FAILED, "exit_code")


# --- release -------------------------------------------------------------------------------------


def released(**fields: Any) -> Run:
    run = apply(
        run_in(Place.EXEC, can_checkpoint=True, **fields), make_event(Kind.PAUSE_REQUESTED, mode="release")
    )
    return apply(run, make_event(Kind.EXITED, released=True, steps=500))


def test_a_release_does_not_end_the_run() -> None:
    """A worker that released its slots on request waits in PAUSE and keeps its steps."""
    run = ended(released())
    assert place(run) is Place.RELEASED
    assert run.steps_before == 500


def test_a_resume_during_a_release_queues_the_run() -> None:
    """A run that is resumed before its tree is empty is released and then queued."""
    run = ended(apply(released(), make_event(Kind.RESUME_REQUESTED)))
    assert (place(run), owed(run)) == (Place.RELEASED, "queue")


def test_only_a_run_that_can_checkpoint_is_released() -> None:
    """`released` in an exit is ignored without checkpoints and before the run worked."""
    assert ended(exited({"exit_code": 0, "released": True})).is_final
    early = apply(run_in(Place.HSHK, can_checkpoint=True), make_event(Kind.EXITED, released=True))
    assert ended(early).is_final


@pytest.mark.parametrize(
    ("event", "outcome", "cause"),
    [
        (make_event(Kind.STOP_REQUESTED), "cancelled", "by_user"),
        (make_event(Kind.LIMIT_REACHED), "timeout", "time_limit"),
    ],
)  # fmt: skip
def test_a_stop_during_a_release_ends_the_run(event: Any, outcome: str, cause: str) -> None:
    """A stop or limit during a release decides outcome and cause, although the worker exited with 0."""
    run = ended(apply(released(), event))
    assert (run.outcome, (run.cause or {}).get("kind")) == (outcome, cause)


# --- runs that have not ended -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", [Place.INIT, Place.HSHK, Place.RDY, Place.EXEC, Place.PAUSE, Place.RELEASED, Place.TERM]
)
def test_a_run_without_exit_or_fault_cannot_be_concluded(where: Place) -> None:
    """conclude() raises ValueError for a run without exit and fault."""
    run = run_in(where)
    if run.exit is None:
        with pytest.raises(ValueError, match="has not exited"):
            conclude(run, AT, 0.0)


def test_a_waiting_run_has_no_exit() -> None:
    """The exit of an earlier attempt is cleared when the run waits again."""
    assert new_run().exit is run_in(Place.RELEASED).exit is None
