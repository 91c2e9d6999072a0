"""Release: a worker saves, leaves and gives its slots to others, and comes back where it was."""

from typing import Any

import pytest

from tests.daemon.workshop import idle, loaded, position, train, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}
#: So long that a slow machine has time for a check and a request meanwhile.
LONG: dict[str, Any] = {"episodes": 240, "episode_delay_s": 0.025, "checkpoint_every_episodes": 0}


def is_released(run: dict[str, Any]) -> bool:
    return run["state"] == "PAUSE" and run["released"] is True


def released(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """Wait until the run has given its slots back."""
    return wait_until(lambda: harness.get(run_id), is_released, f"run {run_id} is released")


@pytest.mark.parametrize("first_mode", [pytest.param(None, marks=pytest.mark.slow), "freeze"])
def test_a_released_run_lets_others_pass_and_goes_on(build: Build, first_mode: str | None) -> None:
    """Released out of its work or out of a freeze: the slot is another's, then its own again; no retry is
    used, no episode is lost or played twice, and what it learned is what one run would have learned."""
    harness = workshop(build, cpus={"slots": 1}, timeouts={"worker_grace_s": 20.0})
    run_id = train(harness, PATIENT, **LONG)
    wait_until(lambda: position(harness, run_id), lambda done: done > 5, "it works")
    if first_mode:
        harness.call("run.pause", run_id=run_id, mode=first_mode)
        harness.until(run_id, "PAUSE")
        assert harness.get(run_id)["released"] is False
    harness.call("run.pause", run_id=run_id, mode="release")
    away = released(harness, run_id)
    assert (away["cpus"]["granted"], away["slots"], away["attempt"]) == (None, [], 1)
    assert away["checkpoint"]["step"] > 0 and harness.pids(run_id) == []

    other = harness.submit("true")
    assert harness.ended(other)["outcome"] == "succeeded"

    harness.call("run.resume", run_id=run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("succeeded", 2, 0)
    assert run["resumed_from"]["step"] == away["checkpoint"]["step"]
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [away["checkpoint"]["step"]]
    played = [
        record["data"]["episode_index"]
        for attempt in (1, 2)
        for record in harness.telemetry(run_id, attempt)
        if record["kind"] == "episode"
    ]
    assert played == list(range(240))


def test_a_release_waits_for_a_worker_that_is_starting(build: Build) -> None:
    """Asked for before the worker shows life, and the daemon restarts meanwhile: it is not ended half-made,
    but saves and leaves once it works."""
    harness = workshop(build, timeouts={"worker_grace_s": 20.0})
    gate = harness.home / "begin"
    run_id = idle(harness, PATIENT, begin_at=str(gate), steps=100_000, step_s=0.01)
    harness.until(run_id, "RDY")
    harness.call("run.pause", run_id=run_id, mode="release")
    harness.restart()
    gate.touch()
    away = released(harness, run_id)
    assert (away["attempt"], away["outcome"], away["started_at"] is not None) == (1, None, True)


def test_a_worker_that_ended_meanwhile_has_ended(build: Build) -> None:
    """A release that comes too late does not bring a run back that completed."""
    harness = workshop(build, timeouts={"worker_grace_s": 20.0})
    gate = harness.home / "go"
    run_id = idle(harness, PATIENT, hang=True, go_on=str(gate))
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="release")
    gate.touch()
    run = harness.ended(run_id)
    assert run["outcome"] == "succeeded"


def test_a_worker_that_does_not_leave(build: Build) -> None:
    """A release that had to be forced, with nothing saved, is a fault with its own cause: work was lost."""
    harness = workshop(build, timeouts={"worker_grace_s": 0.5})
    run_id = idle(harness, PATIENT, hang=True)
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="release")
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "checkpoint_invalid")
    assert "neither saved a checkpoint nor left" in run["cause"]["error"]


@pytest.mark.slow
def test_the_time_limit_goes_on_over_a_release(build: Build) -> None:
    """What was used of the time limit before a release is used; the pause itself is not."""
    harness = workshop(build)
    config = {**LONG, "episodes": 400_000, "episode_delay_s": 0.005}
    run_id = train(harness, {**PATIENT, "time_limit_s": 10.0}, **config)
    wait_until(lambda: position(harness, run_id), lambda done: done > 700, "it has worked for over 3 s")
    harness.call("run.pause", run_id=run_id, mode="release")
    released(harness, run_id)
    harness.call("run.resume", run_id=run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"]) == ("timeout", 2)
    (last,) = [event for event in harness.events(run_id) if event["kind"] == "limit_reached"]
    begun = [event["at"] for event in harness.events(run_id) if event["kind"] == "spawned"]
    assert last["at"] - begun[1] < 10.0 - 0.3
