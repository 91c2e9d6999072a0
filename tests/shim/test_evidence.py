"""Fields of exit.json: active time, the source of the step count, and the worker's last word."""

import json

from tests.harness.shim import ShimHarness


def line(kind: str, **payload: object) -> str:
    return json.dumps({"event": kind, "run_id": "x", "timestamp": 1, "payload": payload})


def test_active_time_does_not_include_pauses(harness: ShimHarness) -> None:
    """active_s is the time without pauses, so a time limit continues after a release."""
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


def test_exit_json_has_the_source_of_the_step_count(harness: ShimHarness) -> None:
    """steps_are_global is true if the worker reported global_step, false if step records were counted."""
    for data, is_global in (({"global_step": 5000}, True), ({}, False)):
        step = json.dumps({"type": "step", "run_id": "x", "step_index": 1, "episode_index": 1, **data})
        run = harness.launch(["echo", step])
        record = run.exit()
        assert (record["steps"], record["steps_are_global"]) == ((5000, True) if is_global else (1, False))
        run.wait_until_shim_exits()


def test_the_text_of_run_failed_is_the_error(harness: ShimHarness) -> None:
    """The error is cut to 256 characters."""
    failed_line = line("run_failed", error="no such map: " + "x" * 1000)
    run = harness.launch(["sh", "-c", f"echo '{failed_line}'; exit 1"], kind="worker")
    record = run.exit()
    assert record["last_word"] == "run_failed" and record["fault"] is None
    assert record["error"].startswith("no such map: x") and len(record["error"]) <= 256
    run.wait_until_shim_exits()
