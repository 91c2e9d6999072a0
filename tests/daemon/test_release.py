"""Release: a worker saves a checkpoint, exits and gives its slots back; after a resume it continues from
there."""

from typing import Any

import pytest

from tests.daemon.workshop import idle, loaded, position, train, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}
#: Long enough for a check and a request meanwhile, also on a slow machine.
LONG: dict[str, Any] = {"episodes": 240, "episode_delay_s": 0.025, "checkpoint_every_episodes": 0}


def is_released(run: dict[str, Any]) -> bool:
    """Return whether the run is paused without slots."""
    return run["state"] == "PAUSE" and run["released"] is True


def released(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """Wait until the run has given its slots back; return it."""
    return wait_until(lambda: harness.get(run_id), is_released, f"run {run_id} is released")


@pytest.mark.parametrize("first_mode", [pytest.param(None, marks=pytest.mark.slow), "freeze"])
def test_a_released_run_gives_its_slot_away_and_continues(build: Build, first_mode: str | None) -> None:
    """A run that is released, also while frozen, gives its slot to another run and then continues from its
    checkpoint.

    No retry is used, and no episode is lost or played twice.
    """
    harness = workshop(build, cpus={"slots": 1}, timeouts={"grace_s": 20.0})
    run_id = train(harness, PATIENT, **LONG)
    wait_until(lambda: position(harness, run_id), lambda done: done > 5, "the worker has played 5 episodes")
    if first_mode:
        harness.call("run.pause", run_id=run_id, mode=first_mode)
        harness.until(run_id, "PAUSE")
        assert harness.get(run_id)["released"] is False
    harness.call("run.pause", run_id=run_id, mode="release")
    paused = released(harness, run_id)
    assert (paused["cpus"]["granted"], paused["slots"], paused["attempt"]) == (None, [], 1)
    assert paused["checkpoint"]["step"] > 0 and harness.pids(run_id) == []

    other = harness.submit("true")
    assert harness.ended(other)["outcome"] == "succeeded"

    harness.call("run.resume", run_id=run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("succeeded", 2, 0)
    step = paused["checkpoint"]["step"]
    assert run["resumed_from"]["step"] == step
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [step]
    played = [
        record["data"]["episode_index"]
        for attempt in (1, 2)
        for record in harness.telemetry(run_id, attempt)
        if record["kind"] == "episode"
    ]
    assert played == list(range(240))


def test_a_release_waits_for_a_worker_that_is_starting(build: Build) -> None:
    """A release of a starting worker waits, also across a restart of the daemon, until the worker can save a
    checkpoint."""
    harness = workshop(build, timeouts={"grace_s": 20.0})
    gate = harness.home / "begin"
    run_id = idle(harness, PATIENT, begin_at=str(gate), steps=100_000, step_s=0.01)
    harness.until(run_id, "RDY")
    harness.call("run.pause", run_id=run_id, mode="release")
    harness.restart()
    gate.touch()
    paused = released(harness, run_id)
    assert (paused["attempt"], paused["outcome"], paused["started_at"] is not None) == (1, None, True)


def test_a_release_does_not_revive_a_completed_run(build: Build) -> None:
    """If the worker completes before it can be released, the run ends as succeeded."""
    harness = workshop(build, timeouts={"grace_s": 20.0})
    gate = harness.home / "go"
    run_id = idle(harness, PATIENT, hang=True, hang_until=str(gate))
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="release")
    gate.touch()
    run = harness.ended(run_id)
    assert run["outcome"] == "succeeded"


def test_a_worker_that_ignores_a_release_fails(build: Build) -> None:
    """If a worker neither saves nor exits, the release ends the run as failed (checkpoint_invalid)."""
    harness = workshop(build, timeouts={"grace_s": 0.5})
    run_id = idle(harness, PATIENT, hang=True)
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="release")
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "checkpoint_invalid")
    assert "saved no checkpoint" in run["cause"]["error"]


@pytest.mark.slow
def test_the_time_limit_includes_the_time_before_a_release(build: Build) -> None:
    """Time before a release counts towards the time limit; the pause does not."""
    harness = workshop(build)
    config = {**LONG, "episodes": 400_000, "episode_delay_s": 0.005}
    run_id = train(harness, {**PATIENT, "time_limit_s": 10.0}, **config)
    wait_until(lambda: position(harness, run_id), lambda done: done > 700, "700 episodes, over 3 s")
    harness.call("run.pause", run_id=run_id, mode="release")
    released(harness, run_id)
    harness.call("run.resume", run_id=run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"]) == ("timeout", 2)
    (last,) = [event for event in harness.events(run_id) if event["kind"] == "limit_reached"]
    begun = [event["at"] for event in harness.events(run_id) if event["kind"] == "spawned"]
    assert last["at"] - begun[1] < 10.0 - 0.3
