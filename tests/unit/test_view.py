"""The run object on the wire: it always has every key and can be written as JSON."""

import json

import pytest

from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, RunKind, State, Want

KEYS = """run_id name owner owner_uid kind worker_kind state want outcome cause exit_code signal
    left_processes pid attempt
    slots gpus cpus memory_mb stdin_bytes priority labels digest duplicate created_at dispatched_at started_at
    finished_at last_heartbeat_at not_before held pinned pause_mode released run_dir cwd command time_limit_s
    max_steps grace_s
    retries retries_used
    progress metrics containment limits stall_s heartbeat_timeout_s start_timeout_s
    handshake_timeout_s retry_on origin resumed_from checkpoint reason rev""".split()


def run(**fields: object) -> Run:
    values: dict[str, object] = {
        "run_id": "0" * 26, "owner_uid": 1000, "owner": "ada", "kind": RunKind.COMMAND, "name": "taxi",
        "command": ("sh", "-c", "true"), "digest": "d", "created_at": 1.5, "labels": {"a": "b"}, "rev": 3,
    }  # fmt: skip
    return Run(**{**values, **fields})  # type: ignore[arg-type]


def test_a_new_run_has_every_key() -> None:
    """Unknown values are null, so scripts can rely on each key."""
    shown = run_object(run(), Progress(), "/state/runs/0")
    assert list(shown) == KEYS
    assert shown["outcome"] is shown["cause"] is shown["exit_code"] is shown["signal"] is shown["pid"] is None
    assert (shown["slots"], shown["duplicate"], shown["reason"], shown["metrics"]) == ([], False, None, {})
    assert shown["gpus"] == {"requested": 0, "mandatory": False, "granted": None}
    assert shown["cpus"] == {"requested": 1, "granted": None}
    assert shown["run_dir"] == "/state/runs/0"
    assert shown["command"] == ["sh", "-c", "true"]


def test_enums_are_written_as_strings() -> None:
    """Enums become their values at every depth, and the object needs no special encoder."""
    shown = run_object(
        run(
            kind=RunKind.WORKER, state=State.TERM, want=Want.STOP, outcome=Outcome.TIMEOUT,
            pause_mode=PauseMode.FREEZE,
            cause={"kind": CauseKind.TIME_LIMIT, "signal": 15}, exit={"signal": 15},
        ),
        Progress(), "/x",
    )  # fmt: skip
    assert json.loads(json.dumps(shown)) == shown
    words = (
        shown["kind"],
        shown["state"],
        shown["want"],
        shown["outcome"],
        shown["pause_mode"],
        shown["cause"]["kind"],
    )
    assert words == ("worker", "TERM", "stop", "timeout", "freeze", "time_limit")
    assert {type(word) for word in words} == {str}
    assert (shown["exit_code"], shown["signal"]) == (None, 15)


def test_duplicate_and_reason_come_from_the_caller() -> None:
    """`duplicate` and `reason` belong to one reply and are not stored."""
    shown = run_object(run(), Progress(), "/x", duplicate=True, reason="waits for 2 CPU slots")
    assert (shown["duplicate"], shown["reason"]) == (True, "waits for 2 CPU slots")


def test_a_fault_shows_its_cause_before_the_end() -> None:
    """In FAULT the cause is the fault's; a waiting retry has none; an ended run has that of its end."""
    fault = {"kind": CauseKind.SHIM_LOST}
    assert run_object(run(state=State.FAULT, fault=fault), Progress(), "/x")["cause"] == {"kind": "shim_lost"}
    assert run_object(run(), Progress(), "/x")["cause"] is None
    ended = run(state=State.TERM, outcome=Outcome.SUCCEEDED, fault=fault, cause=None)
    assert run_object(ended, Progress(), "/x")["cause"] is None


@pytest.mark.parametrize(
    ("state", "released", "granted"),
    [(State.INIT, False, None), (State.HSHK, False, 2), (State.EXEC, False, 2), (State.PAUSE, False, 2),
     (State.PAUSE, True, None), (State.FAULT, False, 2), (State.TERM, False, 2)],
)  # fmt: skip
def test_a_waiting_run_has_no_granted_resources(state: State, released: bool, granted: int | None) -> None:
    """`granted` is null for a waiting run; an ended run keeps the numbers of its last attempt."""
    outcome = Outcome.SUCCEEDED if state is State.TERM else None
    waiting = run(state=state, released=released, outcome=outcome, cpus_granted=2, gpus_granted=2)
    shown = run_object(waiting, Progress(), "/x")
    assert (shown["cpus"]["granted"], shown["gpus"]["granted"]) == (granted, granted)


def test_progress_and_metrics_are_the_last_values() -> None:
    """total_steps is the worker's value, or max_steps without one."""
    progress = Progress(steps=5, telemetry_seq=9, last_heartbeat_at=7.5, metrics={"loss": 0.5})
    shown = run_object(run(max_steps=100), progress, "/x")
    assert shown["progress"] == {
        "steps": 5, "episodes": None, "total_steps": 100, "total_episodes": None, "telemetry_seq": 9,
        "stdout_bytes": 0, "stderr_bytes": 0, "steps_per_s": None,
    }  # fmt: skip
    assert (shown["last_heartbeat_at"], shown["metrics"]) == (7.5, {"loss": 0.5})
    progress.total_steps = 50
    assert run_object(run(max_steps=100), progress, "/x")["progress"]["total_steps"] == 50


def test_the_object_is_a_copy() -> None:
    """A change of the run object changes neither run nor progress."""
    progress = Progress(metrics={"loss": 0.5})
    original = run()
    shown = run_object(original, progress, "/x")
    shown["labels"]["x"] = shown["metrics"]["x"] = 1
    assert original.labels == {"a": "b"}
    assert progress.metrics == {"loss": 0.5}
