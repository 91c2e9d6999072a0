"""What exit.json has for the daemon: time without pauses, whose count of steps it is, a worker's words."""

import json

from tests.harness.shim import ShimHarness


def line(kind: str, **payload: object) -> str:
    return json.dumps({"event": kind, "run_id": "x", "timestamp": 1, "payload": payload})


def test_the_time_without_pauses(harness: ShimHarness) -> None:
    """active_s counts what ran, so a time limit can go on where it stood after a release."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    run.control("pause", mode="freeze")
    run.fact("paused")
    harness.peer.pump_for(0.8)
    run.control("resume")
    run.fact("continued")
    run.control("stop", grace_s=1)
    record = run.exit()
    assert record["active_s"] < record["finished_at"] - run.json("launch.json")["at"] - 0.7
    run.wait_until_shim_exits()


def test_whose_count_it_is(harness: ShimHarness) -> None:
    """steps_are_global when the worker reported a step of its own; never for counted records."""
    for data, is_global in (({"global_step": 5000}, True), ({}, False)):
        step = json.dumps({"type": "step", "run_id": "x", "step_index": 1, "episode_index": 1, **data})
        run = harness.launch(["echo", step])
        record = run.exit()
        assert (record["steps"], record["steps_are_global"]) == ((5000, True) if is_global else (1, False))
        run.wait_until_shim_exits()


def test_a_workers_own_words(harness: ShimHarness) -> None:
    """The text of run_failed is the error of the run, cut to what a message takes."""
    said = line("run_failed", error="no such map: " + "x" * 1000)
    run = harness.launch(["sh", "-c", f"echo '{said}'; exit 1"], kind="worker")
    record = run.exit()
    assert record["last_word"] == "run_failed" and record["fault"] is None
    assert record["error"].startswith("no such map: x") and len(record["error"]) <= 256
    run.wait_until_shim_exits()
