"""Release: a worker saves, leaves and gives its slots to others, and comes back where it was."""

from typing import Any

import pytest

from tests.daemon.house import House, eventually
from tests.daemon.workshop import Build, idle, loaded, position, train, workshop

PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}
#: So long that whoever looks at it, and then asks for something, may be held up for seconds meanwhile.
LONG: dict[str, Any] = {"episodes": 240, "episode_delay_s": 0.025, "checkpoint_every_episodes": 0}


def is_released(run: dict[str, Any]) -> bool:
    return run["state"] == "PAUSE" and run["released"] is True


def released(house: House, run_id: str) -> dict[str, Any]:
    """Wait until the run has given its slots back."""
    return eventually(lambda: house.get(run_id), is_released, f"run {run_id} is released")


@pytest.mark.parametrize("first_mode", [pytest.param(None, marks=pytest.mark.slow), "freeze"])
def test_a_released_run_lets_others_pass_and_goes_on(build: Build, first_mode: str | None) -> None:
    """Released out of its work or out of a freeze: the slot is another's, then its own again; no retry is
    used, no episode is lost or played twice, and what it learned is what one run would have learned."""
    house = workshop(build, cpus={"slots": 1}, timeouts={"worker_grace_s": 20.0})
    run_id = train(house, PATIENT, **LONG)
    eventually(lambda: position(house, run_id), lambda done: done > 5, "it works")
    if first_mode:
        house.call("run.pause", run_id=run_id, mode=first_mode)
        house.until(run_id, "PAUSE")
        assert house.get(run_id)["released"] is False
    house.call("run.pause", run_id=run_id, mode="release")
    away = released(house, run_id)
    assert (away["cpus"]["granted"], away["slots"], away["attempt"]) == (None, [], 1)
    assert away["checkpoint"]["step"] > 0 and house.pids(run_id) == []

    other = house.submit("true")
    assert house.ended(other)["outcome"] == "succeeded"

    house.call("run.resume", run_id=run_id)
    run = house.ended(run_id)
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("succeeded", 2, 0)
    assert run["resumed_from"]["step"] == away["checkpoint"]["step"]
    assert [payload["global_step"] for payload in loaded(house, run_id, 2)] == [away["checkpoint"]["step"]]
    played = [
        record["data"]["episode_index"]
        for attempt in (1, 2)
        for record in house.telemetry(run_id, attempt)
        if record["kind"] == "episode"
    ]
    assert played == list(range(240))


def test_a_release_waits_for_a_worker_that_is_starting(build: Build) -> None:
    """Asked for before the worker shows life, and the daemon restarts meanwhile: it is not ended half-made,
    but saves and leaves once it works."""
    house = workshop(build, timeouts={"worker_grace_s": 20.0})
    gate = house.home / "begin"
    run_id = idle(house, PATIENT, begin_at=str(gate), steps=100_000, step_s=0.01)
    house.until(run_id, "RDY")
    house.call("run.pause", run_id=run_id, mode="release")
    house.restart()
    gate.touch()
    away = released(house, run_id)
    assert (away["attempt"], away["outcome"], away["started_at"] is not None) == (1, None, True)


def test_a_worker_that_ended_meanwhile_has_ended(build: Build) -> None:
    """A release that comes too late does not bring a run back that completed."""
    house = workshop(build, timeouts={"worker_grace_s": 20.0})
    gate = house.home / "go"
    run_id = idle(house, PATIENT, hang=True, go_on=str(gate))
    house.until(run_id, "EXEC")
    house.call("run.pause", run_id=run_id, mode="release")
    gate.touch()
    run = house.ended(run_id)
    assert run["outcome"] == "succeeded"


def test_a_worker_that_does_not_leave(build: Build) -> None:
    """A release that had to be forced, with nothing saved, is a fault with its own cause: work was lost."""
    house = workshop(build, timeouts={"worker_grace_s": 0.5})
    run_id = idle(house, PATIENT, hang=True)
    house.until(run_id, "EXEC")
    house.call("run.pause", run_id=run_id, mode="release")
    run = house.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "checkpoint_invalid")
    assert "neither saved a checkpoint nor left" in run["cause"]["error"]


@pytest.mark.slow
def test_the_time_limit_goes_on_over_a_release(build: Build) -> None:
    """What was used of the time limit before a release is used; the pause itself is not."""
    house = workshop(build)
    config = {**LONG, "episodes": 400_000, "episode_delay_s": 0.005}
    run_id = train(house, {**PATIENT, "time_limit_s": 10.0}, **config)
    eventually(lambda: position(house, run_id), lambda done: done > 700, "it has worked for over 3 s")
    house.call("run.pause", run_id=run_id, mode="release")
    released(house, run_id)
    house.call("run.resume", run_id=run_id)
    run = house.ended(run_id)
    assert (run["outcome"], run["attempt"]) == ("timeout", 2)
    (last,) = [event for event in house.events(run_id) if event["kind"] == "limit_reached"]
    begun = [event["at"] for event in house.events(run_id) if event["kind"] == "spawned"]
    assert last["at"] - begun[1] < 10.0 - 0.3
