"""Time and step limits of a run, which the shim enforces without the daemon."""

import json

from tests.harness.shim import ShimHarness

#: Prints four steps, the fifth after the gate opens, and then sleeps.
STEPPING = """
import json, time
for n in range(5):
    if n == 4:
        open("gate").read()
    print(json.dumps({"type": "step", "step_index": n, **%s}))
time.sleep(1000)
"""


def test_the_time_limit_ends_the_run(harness: ShimHarness) -> None:
    """When the time limit is reached, the shim reports it and begins the kill sequence."""
    run = harness.launch(["sleep", "1000"], limits={"time_limit_s": 0.2})
    fact = run.fact("limit_reached")
    assert (fact["kind"], fact["ran_s"] >= 0.2) == ("time_limit", True)
    record = run.exit()
    assert (record["signal"], record["stop"]["kind"]) == (15, "time_limit")
    run.wait_until_shim_exits()


def test_the_time_limit_acts_while_the_daemon_is_down(harness: ShimHarness) -> None:
    """Without a daemon the record on the disk is complete, and the shim exits."""
    run = harness.launch(["sleep", "1000"], limits={"time_limit_s": 0.3})
    run.fact("started")
    harness.peer.close()
    harness.peer.until(lambda: run.has("exit.json"))
    record = run.json("exit.json")
    assert (record["signal"], record["stop"]["kind"], record["swept"]) == (15, "time_limit", True)
    run.wait_until_shim_exits()


def test_max_steps_counts_step_records(harness: ShimHarness) -> None:
    """For a worker without global_step, `max_steps` counts its step records."""
    gate = harness.gate()
    run = harness.python(STEPPING % "{}", kind="worker", limits={"max_steps": 5})
    harness.peer.until(lambda: (harness.peer.last_advance(run.run_id) or {}).get("steps") == 4)
    assert not run.facts("limit_reached")
    gate.open()
    fact = run.fact("limit_reached")
    assert (fact["kind"], fact["steps"]) == ("step_limit", 5)
    record = run.exit()
    assert (record["signal"], record["stop"]["kind"], record["steps"]) == (15, "step_limit", 5)
    run.wait_until_shim_exits()


def test_max_steps_uses_the_workers_global_step(harness: ShimHarness) -> None:
    """A record with `global_step` 4000 counts as 4000 steps."""
    gate = harness.gate()
    run = harness.python(STEPPING % '{"global_step": 1000 * n}', limits={"max_steps": 4000})
    harness.peer.until(lambda: (harness.peer.last_advance(run.run_id) or {}).get("steps") == 3000)
    assert not run.facts("limit_reached")
    gate.open()
    assert run.fact("limit_reached")["steps"] == 4000
    assert run.exit()["signal"] == 15
    assert len(run.telemetry()) == 5
    run.wait_until_shim_exits()


def test_progress_and_metrics_are_reported_and_recorded(harness: ShimHarness) -> None:
    """Counts, totals and last values are sent to the daemon and written to exit.json."""
    lines: list[dict[str, object]] = [
        {"event": "run_started", "payload": {"total_timesteps": 500, "num_episodes": 9}},
        *({"type": "episode", "episode_index": n, "total_reward": float(n), "steps": 10} for n in range(3)),
        {"event": "heartbeat", "payload": {"num_timesteps": 30, "loss": 0.25, "status": "ok"}},
        {"event": "run_completed", "payload": {}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    run = harness.launch(["printf", "%s\\n", text])
    record = run.exit()
    assert (record["steps"], record["episodes"], record["last_word"]) == (30, 3, "run_completed")
    assert record["metrics"] == {
        "episode_return": 2.0, "mean_return_100": 1.0, "episode_length": 10, "loss": 0.25,
        "num_timesteps": 30,
    }  # fmt: skip
    run.wait_until_shim_exits()
    advance = harness.peer.until(
        lambda: [advance for advance in harness.peer.advances if advance["telemetry_seq"] == 6],
        shown=lambda: harness.peer.last_advance(run.run_id),
    )[-1]
    assert (advance["total_steps"], advance["total_episodes"]) == (500, 9)
    assert (advance["telemetry_seq"], advance["metrics"]) == (6, record["metrics"])
