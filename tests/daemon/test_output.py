"""Output is never lost and never blocks the worker; every telemetry record has its number."""

import json
import subprocess
import sys

import pytest

from tests.harness.daemon import DaemonHarness
from tests.harness.places import PROGRAMS


def test_only_lifecycle_lines_reach_exec(harness: DaemonHarness) -> None:
    """A worker that prints only lifecycle lines reaches EXEC with run_started."""
    script = harness.home / "worker"
    script.write_text(f"#!{sys.executable}\n" + (PROGRAMS / "lifecycle.py").read_text())
    script.chmod(0o755)
    gate = harness.home / "gate"
    worker = {"script": str(script), "arguments": [str(gate)]}
    run = harness.submit_config(
        {
            "run_name": "w",
            "entry_point": "x",
            "arguments": [],
            "environment": {},
            "resources": {"cpus": 1, "memory_mb": 512, "gpus": {"requested": 0}},
            "artifacts": {},
            "metadata": {"worker": worker},
        }
    )
    assert run["kind"] == "worker"
    harness.until(run["run_id"], "EXEC")
    gate.touch()
    ended = harness.ended(run["run_id"])
    assert ended["outcome"] == "succeeded"
    assert [record["kind"] for record in harness.telemetry(run["run_id"])] == ["run_started", "run_completed"]


def test_burst_of_steps_is_kept_and_numbered(harness: DaemonHarness) -> None:
    """20,000 step lines in one burst are numbered in order, and the counters agree."""
    run = harness.ended(harness.program("burst"), 60)
    records = harness.telemetry(run["run_id"])

    assert [record["seq"] for record in records] == list(range(1, 20001))
    assert [record["data"]["step_index"] for record in records] == list(range(20000))
    assert run["progress"]["steps"] == 20000 and run["progress"]["telemetry_seq"] == 20000


def test_hostile_output_is_kept_complete(harness: DaemonHarness) -> None:
    """A 200 KB line, 40,000 carriage returns on stderr, bare NaN and invalid UTF-8 block nothing, and no byte
    is lost."""
    run = harness.ended(harness.program("hostile"))
    records = harness.telemetry(run["run_id"])

    assert run["exit_code"] == 0
    assert [record["kind"] for record in records] == ["step", "episode", "step"]
    assert len(records[0]["data"]["observation_json"]) == 200000
    assert records[1]["data"]["total_reward"] == "NaN"
    stderr = (harness.attempt(run["run_id"]) / "stderr.log").read_bytes()
    assert stderr == b"".join(b"\rprogress %d" % i for i in range(40000))
    assert harness.stdout(run["run_id"]).endswith(
        b'\xff\xfe not json { at all\n[PROGRESS] 10%\n{"unfinished": '
    )
    assert run["progress"]["stdout_bytes"] == len(harness.stdout(run["run_id"]))


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_ten_megabytes_a_second_on_both_pipes(harness: DaemonHarness, seconds: int) -> None:
    """With 10 MB/s on both pipes, the worker is not delayed and every byte is in the files."""
    run = harness.ended(harness.program("pour", str(seconds)), 60)

    assert run["exit_code"] == 0, "the worker was delayed"
    expected = 100 * seconds * (7 * 14979 + 1)
    for stream in ("stdout", "stderr"):
        assert (harness.attempt(run["run_id"]) / f"{stream}.log").stat().st_size == expected
        assert run["progress"][f"{stream}_bytes"] == expected


def test_logs_come_back_exactly(harness: DaemonHarness) -> None:
    """run.logs returns exactly the bytes of the file, in chunks."""
    code = "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)"
    run_id = harness.python(code)
    harness.ended(run_id)
    raw = subprocess.run(
        harness.ctl_command("logs", run_id), capture_output=True, check=True, env=harness.environment
    ).stdout
    assert raw == bytes(range(256)) * 1000


def test_every_record_is_strict_json(harness: DaemonHarness) -> None:
    """telemetry.jsonl is strict JSON whatever a worker prints."""
    run = harness.ended(
        harness.submit("sh", "-c", """echo '{"type":"step","reward":NaN,"nested":{"x":[Infinity]}}'""")
    )

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for line in (harness.attempt(run["run_id"]) / "telemetry.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
