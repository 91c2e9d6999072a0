"""Stop: the process tree ends within the grace period + 1 s, and only then is its slot free."""

import time

import pytest

from tests.harness import processes
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def test_a_stubborn_tree_ends_before_its_slot_is_used(build: Build) -> None:
    """A tree that ignores TERM, with a new session and a double fork, ends within grace + 1 s, before its
    slot is used again.

    A suspended machine can delay one stop, so up to five are measured.
    """
    harness = build(cpus={"slots": 1})
    took_s: list[float] = []
    while len(took_s) < 5 and not any(took < 2.0 for took in took_s):
        took_s.append(stop_of_a_stubborn_tree(harness))
    assert min(took_s) < 2.0, took_s


def stop_of_a_stubborn_tree(harness: DaemonHarness) -> float:
    """Stop a stubborn tree with a grace period of 1 s; return the seconds until the run ended."""
    run_id = harness.program("stubborn")
    printed = wait_until(
        lambda: harness.stdout(run_id) if harness.get(run_id)["state"] == "EXEC" else b"",
        lambda b: b.endswith(b"\n"),
        "pids",
    )
    pids = [*map(int, printed.split()), harness.get(run_id)["pid"]]
    assert all(map(processes.is_alive, pids))
    follower = harness.program("have_ended", *map(str, pids))

    began = time.monotonic()
    harness.call("run.stop", run_id=run_id, grace_s=1.0, reason="drill")
    run = harness.ended(run_id)
    took_s = time.monotonic() - began

    assert not any(map(processes.is_alive, pids))
    assert (
        run["outcome"] == "cancelled"
        and run["cause"]["kind"] == "by_user"
        and run["cause"]["reason"] == "drill"
    )
    assert harness.ended(follower)["exit_code"] == 0, "the next run found a process of the previous one"
    return took_s


def test_stop_of_a_waiting_run_cancels_it(build: Build) -> None:
    """A waiting run that is stopped is cancelled and never starts."""
    harness = build(cpus={"slots": 1})
    first = harness.submit("sleep", "60")
    harness.until(first, "EXEC")
    second = harness.submit("true")

    harness.call("run.stop", run_id=second)
    run = harness.ended(second)

    assert run["outcome"] == "cancelled" and run["attempt"] == 0 and run["started_at"] is None


def test_a_run_that_ends_by_sigterm_is_cancelled(harness: DaemonHarness) -> None:
    """A run that ends by the daemon's SIGTERM is cancelled, without passing through FAULT."""
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    harness.call("run.stop", run_id=run_id)
    run = harness.ended(run_id)

    assert run["outcome"] == "cancelled" and run["signal"] == 15
    kinds = [event["kind"] for event in harness.events(run_id)]
    assert "broke" not in kinds


def test_a_repeated_stop_changes_nothing(harness: DaemonHarness) -> None:
    """A second stop, and a stop of an ended run, return the run and change nothing."""
    run_id = harness.submit("sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait; sleep 60")
    harness.until(run_id, "EXEC")
    wait_until(lambda: harness.stdout(run_id), bool, "the run ignores TERM")
    first = harness.call("run.stop", run_id=run_id, grace_s=30)
    second = harness.call("run.stop", run_id=run_id, grace_s=30)
    assert second["rev"] == first["rev"] and second["want"] == "stop"

    harness.call("run.stop", run_id=run_id, grace_s=0)
    ended = harness.ended(run_id)
    assert harness.call("run.stop", run_id=run_id)["rev"] == ended["rev"]


def test_a_helper_is_ended_after_a_clean_exit(harness: DaemonHarness) -> None:
    """A helper process that outlives an exit with 0 is ended before the slot is free."""
    run_id = harness.program("leaves_helper")
    run = harness.ended(run_id)

    assert run["outcome"] == "succeeded" and run["exit_code"] == 0
    assert not processes.is_alive(int(harness.stdout(run_id)))


@pytest.mark.parametrize("grace", [-1, 1e9])
def test_a_grace_period_out_of_range_is_refused(harness: DaemonHarness, grace: float) -> None:
    """A grace period below 0 or above one day is refused and changes nothing."""
    run_id = harness.submit("sleep", "60")
    result = harness.ctl("stop", run_id, "--grace", f"{grace}s")
    assert result.returncode == 2, result
    assert harness.get(run_id)["want"] == "run"
