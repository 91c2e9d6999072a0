"""A command runs from submit to TERM and has its exact end."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mosaicd.protocol.errors import InvalidParams
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness


@pytest.mark.parametrize("code", [0, 7, 200])
def test_exit_code_is_exact(harness: DaemonHarness, code: int) -> None:
    """The run has the exit code from the kernel; only 0 is success."""
    run = harness.ended(harness.submit("sh", "-c", f"exit {code}"))

    assert run["exit_code"] == code and run["signal"] is None
    assert run["outcome"] == ("succeeded" if code == 0 else "failed")
    assert run["cause"] == (None if code == 0 else {"kind": "exit_code", "exit_code": code})


def test_signal_is_exact(harness: DaemonHarness) -> None:
    """A segmentation fault is reported as signal 11, without an exit code."""
    run = harness.ended(harness.python("import os; os.kill(os.getpid(), 11)"))

    assert run["signal"] == signal.SIGSEGV and run["exit_code"] is None
    assert run["outcome"] == "failed" and run["cause"]["kind"] == "signal"


def test_a_missing_program_is_spawn_failed(harness: DaemonHarness) -> None:
    """A program that does not exist fails with spawn_failed and the error of the system."""
    run = harness.ended(harness.submit("/no/such/program"))

    assert run["outcome"] == "failed" and run["cause"]["kind"] == "spawn_failed"
    assert "No such file" in run["cause"]["error"]


def test_a_command_passes_through_the_states(harness: DaemonHarness) -> None:
    """A command passes through INIT, HSHK, RDY, EXEC and TERM, in this order."""
    run_id = harness.submit("true")
    harness.ended(run_id)

    seen = list(dict.fromkeys(event["state"] for event in harness.events(run_id)))

    assert seen == ["INIT", "HSHK", "RDY", "EXEC", "TERM"]


def test_runs_that_do_not_fit_wait(build: Build) -> None:
    """With one CPU slot, the second run starts only when the first has ended."""
    harness = build(cpus={"slots": 1})
    first = harness.submit("sleep", "60")
    harness.until(first, "EXEC")
    second = harness.submit("true")

    assert harness.get(second)["state"] == "INIT"
    harness.call("run.stop", run_id=first, grace_s=0)
    assert harness.ended(first)["outcome"] == "cancelled"
    assert harness.ended(second)["exit_code"] == 0


def test_a_request_above_the_cpus_is_granted_all_cpus(harness: DaemonHarness) -> None:
    """A run that requests more CPUs than there are gets all of them, and the run shows it."""
    run = harness.ended(harness.submit("sh", "-c", "echo $OMP_NUM_THREADS", cpus=64))

    assert run["cpus"] == {"requested": 64, "granted": 2}
    assert harness.stdout(run["run_id"]) == b"2\n"


def test_concurrent_label_changes_are_all_kept(harness: DaemonHarness) -> None:
    """Concurrent `label` and `unlabel` requests change the current labels, so that none is lost."""
    run_id = harness.submit("true", hold=True, labels={"draft": "yes"})

    def one_label(key: int) -> None:
        with harness.client() as client:
            change = {"label": {f"k{key}": str(key)}, "unlabel": ["draft"]}
            client.call("run.set", {"run_id": run_id, **change})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one_label, range(24)))
    assert harness.get(run_id)["labels"] == {f"k{key}": str(key) for key in range(24)}

    for params, path in (
        ({"labels": {"a": "b"}, "unlabel": ["k1"]}, "labels"),
        ({"label": {f"more{key}": "" for key in range(50)}}, "labels"),
        ({"label": {"a=b": ""}}, 'labels["a=b"]'),
    ):
        with pytest.raises(InvalidParams) as refused:
            harness.call("run.set", run_id=run_id, **params)
        assert [error["path"] for error in refused.value.data["errors"]] == [path]
    assert len(harness.get(run_id)["labels"]) == 24


def test_a_set_event_has_new_and_old_values(harness: DaemonHarness) -> None:
    """A `set` event has the new values and, in `was`, the old ones; setting an equal value makes no event."""
    run_id = harness.submit("true", hold=True, labels={"team": "a"})
    set_to: dict[str, Any] = {"priority": 5, "name": "base", "labels": {"team": "b", "seed": "7"}}
    harness.call("run.set", run_id=run_id, **set_to)
    harness.call("run.set", run_id=run_id, **set_to)
    harness.call("run.set", run_id=run_id, name="base", priority=6)
    harness.call("run.release", run_id=run_id)
    harness.ended(run_id)
    first, second = (event for event in harness.events(run_id) if event["kind"] == "set")
    assert {key: first[key] for key in set_to} == set_to
    assert first["was"] == {"priority": 0, "name": "true", "labels": {"team": "a"}}
    assert second["was"] == {"priority": 5} and second["priority"] == 6 and "name" not in second
