"""Automatic retries: by cause, limited by crash loops, from the last intact checkpoint. `retry`: a new
run."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Conflict, InvalidParams, NotFound
from tests.daemon.workshop import idle, loaded, spec_on_disk, train, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}


def test_an_exit_code_is_not_retried_by_default(harness: DaemonHarness) -> None:
    """By default an exit code is not retried; `retry_on` selects causes, and `any` selects all."""
    plain = harness.submit("false", retries=2)
    given = harness.submit("false", retries=1, retry_on=["exit_code"])
    every = harness.submit("false", retries=1, retry_on=["any"])
    both = harness.submit("false", retries=1, retry_on=["infrastructure", "exit_code"])
    assert [harness.ended(run_id)["attempt"] for run_id in (plain, given, every, both)] == [1, 2, 2, 2]
    assert "shim_lost" in harness.get(both)["retry_on"] and "by_user" not in harness.get(every)["retry_on"]


def test_an_unknown_cause_in_retry_on_is_refused(harness: DaemonHarness) -> None:
    """An unknown cause in retry_on is an error that lists the valid ones."""
    with pytest.raises(InvalidParams) as caught:
        harness.submit("true", retries=1, retry_on=["exit-code"])
    assert "any, infrastructure, exit_code" in caught.value.data["errors"][0]["rule"]


def test_a_crash_loop_ends_the_retries(build: Build) -> None:
    """After crash_loop_attempts short attempts in a row there is no retry, and the cause reports the crash
    loop."""
    harness = build(retries={"crash_loop_s": 5.0, "crash_loop_attempts": 3})
    run = harness.ended(harness.submit("sh", "-c", "exit 7", retries=50, retry_on=["any"]))
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("failed", 3, 2)
    assert run["cause"] == {"kind": "exit_code", "exit_code": 7, "crash_loop": True, "attempts": 3}
    assert "crash loop" in harness.ctl("show", run["run_id"]).stdout


@pytest.mark.slow
def test_a_long_attempt_resets_the_crash_loop_count(build: Build) -> None:
    """An attempt that lives longer than crash_loop_s resets the count of the crash loop."""
    harness = build(retries={"crash_loop_s": 4.0, "crash_loop_attempts": 3})
    script = 'test "$MOSAIC_ATTEMPT" = 3 && sleep 4.5; exit 7'
    run = harness.ended(harness.submit("sh", "-c", script, retries=20, retry_on=["any"]), 60.0)
    assert run["attempt"] == 6 and run["cause"]["crash_loop"] is True


def test_an_attempt_resumes_from_the_last_intact_checkpoint(build: Build) -> None:
    """If the newest checkpoint is damaged, the attempt loads the one before it, and the run names that
    checkpoint."""
    harness = workshop(build, retries={"crash_loop_attempts": 0})
    params = {**PATIENT, "retries": 1, "retry_on": ["exit_code"]}
    run_id = idle(harness, params, steps=10, save_at=[4, 8], damage_at=8, exit=3)
    run = harness.ended(run_id)
    assert (run["attempt"], run["retries_used"], run["cause"]["kind"]) == (2, 1, "exit_code")
    assert run["resumed_from"]["step"] == 4
    assert Path(run["resumed_from"]["path"]).name == "checkpoint-000000000004"
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [4]
    assert loaded(harness, run_id, 1) == []
    assert run["checkpoint"]["step"] == 8, "saved by attempt 2"
    assert harness.attempt(run_id, 1) != harness.attempt(run_id, 2)


def test_max_steps_counts_over_attempts(build: Build) -> None:
    """`max_steps` uses the worker's own step count if it has one, else the records of all attempts."""
    harness = workshop(build, cpus={"slots": 4}, retries={"crash_loop_attempts": 0})
    params = {**PATIENT, "retries": 1, "retry_on": ["exit_code"], "max_steps": 15}
    own = idle(harness, params, steps=10, step_s=0.02, save_at=[10], die_at=10, wait=True)
    code = (  # attempt 2 waits after its tenth step, so that the count is no race
        "import json, os, time\nfor n in range(10):\n"
        "    print(json.dumps({'type': 'step', 'step_index': n}), flush=True); time.sleep(0.02)\n"
        "time.sleep(60 * (os.environ['MOSAIC_ATTEMPT'] == '2'))\n"
        "raise SystemExit(3)"
    )
    records = harness.python(code, retries=1, retry_on=["exit_code"], max_steps=15)
    for run_id in (own, records):
        run = harness.ended(run_id)
        assert (run["outcome"], run["cause"]["kind"], run["attempt"]) == ("succeeded", "step_limit", 2), run
    assert 15 <= harness.get(own)["progress"]["steps"] <= 20
    assert 5 <= harness.get(records)["progress"]["steps"] <= 10


# --- retry: a new run ------------------------------------------------------------------------------------


def test_retry_makes_a_new_run_that_continues(build: Build) -> None:
    """The new run names its origin and continues exactly from its checkpoint; `fresh` begins without one."""
    harness = workshop(build)
    config: dict[str, Any] = {"episodes": 200, "episode_delay_s": 0.025, "checkpoint_every_episodes": 5}
    first = train(harness, PATIENT, **config)
    wait_until(lambda: harness.get(first)["checkpoint"], bool, "a checkpoint is saved")
    harness.call("run.stop", run_id=first)
    stopped = harness.ended(first)
    assert stopped["outcome"] == "cancelled"

    retried = harness.call("run.retry", run_id=first)
    harness.run_ids.add(retried["run_id"])
    fresh = harness.call("run.retry", run_id=first, fresh=True)
    harness.run_ids.add(fresh["run_id"])
    assert retried["origin"] == fresh["origin"] == first and retried["duplicate"] is False
    assert (retried["name"], retried["command"], retried["digest"]) == (
        stopped["name"], stopped["command"], stopped["digest"],
    )  # fmt: skip
    again = harness.ended(retried["run_id"])
    assert again["outcome"] == "succeeded" and again["retries_used"] == 0
    assert again["resumed_from"]["step"] == stopped["checkpoint"]["step"]
    assert harness.ended(fresh["run_id"])["resumed_from"] is None

    # Both learned the same table, one of them in two runs.
    tables = [harness.telemetry(run["run_id"])[-1]["data"]["payload"]["q_sha256"] for run in (again, fresh)]
    assert tables[0] == tables[1]

    # The new run resumes from the checkpoints of its origin.
    directory = harness.state_dir / "runs" / first / "files" / "checkpoints"
    assert spec_on_disk(harness, retried["run_id"])["resume_from"] == str(directory)


def test_retry_skips_a_damaged_checkpoint(build: Build) -> None:
    """If the newest checkpoint of the origin is damaged, the new run continues from the intact one before
    it."""
    harness = workshop(build)
    first = idle(harness, PATIENT, steps=6, save_at=[4])
    assert harness.ended(first)["checkpoint"]["step"] == 4
    second = harness.call("run.retry", run_id=first)["run_id"]
    harness.run_ids.add(second)
    harness.ended(second)
    files = harness.state_dir / "runs" / second / "files"
    damaged = files / "checkpoints" / "checkpoint-000000000009"
    shutil.copytree(files.parents[1] / first / "files" / "checkpoints" / "checkpoint-000000000004", damaged)
    (damaged / "state").write_bytes(b"damaged")

    third = harness.call("run.retry", run_id=second)["run_id"]
    harness.run_ids.add(third)
    run = harness.ended(third)
    assert (run["outcome"], run["resumed_from"]["step"]) == ("succeeded", 4)


def test_a_retry_has_the_environment_of_the_first_time(
    harness: DaemonHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retry` uses PATH and variables of the first time, whatever the shell has now, and -e over them."""
    (harness.home / "bin").mkdir()
    tool = harness.home / "bin" / "tool"
    tool.write_text('#!/bin/sh\necho "$LR-$SEED-$LATER"\n')
    tool.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{harness.home / 'bin'}:{path}")
    monkeypatch.setenv("LR", "3e-4")
    done = harness.ctl("-o", "name", "submit", "-e", "SEED=7", "--", "tool")
    first = done.stdout.strip()
    harness.ended(first)
    assert harness.stdout(first) == b"3e-4-7-\n"

    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("LR", "1")
    monkeypatch.setenv("SEED", "1")
    monkeypatch.setenv("LATER", "1")
    second = harness.ctl("-o", "name", "retry", first).stdout.strip()
    harness.ended(second)
    assert harness.stdout(second) == b"3e-4-7-\n"
    assert harness.get(second)["digest"] == harness.get(first)["digest"]

    third = harness.ctl("-o", "name", "retry", second, "-e", "SEED=8", "--without", "LR").stdout.strip()
    harness.ended(third)
    assert harness.stdout(third) == b"-8-\n"
    assert harness.get(third)["digest"] != harness.get(first)["digest"], "other values give another digest"
    assert harness.ctl("retry", first, "--without", "NO_SUCH").returncode == 2


def test_a_retry_takes_secrets_from_the_shell_that_asks(
    harness: DaemonHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets are not kept: `retry` takes them from the shell, and names those that it lacks."""
    script = 'echo "$HF_TOKEN-$WANDB_API_KEY"'
    monkeypatch.setenv("HF_TOKEN", "first-token")
    done = harness.ctl("-o", "name", "submit", "-e", "WANDB_API_KEY=first-key", "--", "sh", "-c", script)
    run_id = done.stdout.strip()
    harness.ended(run_id)
    assert harness.stdout(run_id) == b"first-token-first-key\n"

    monkeypatch.setenv("HF_TOKEN", "second-token")
    refused = harness.ctl("retry", run_id)
    assert refused.returncode == 2 and "WANDB_API_KEY" in refused.stderr and "HF_TOKEN" not in refused.stderr
    assert "-e NAME=" in refused.stderr and "--without NAME" in refused.stderr
    assert len(harness.call("run.list")["runs"]) == 1

    for option, printed in (
        (("-e", "WANDB_API_KEY=second-key"), b"second-token-second-key\n"),
        (("--without", "WANDB_API_KEY"), b"second-token-\n"),
    ):
        done = harness.ctl("-o", "name", "retry", run_id, *option)
        assert done.returncode == 0, done.stderr
        harness.ended(done.stdout.strip())
        assert harness.stdout(done.stdout.strip()) == printed


def test_retry_of_a_live_or_unknown_run_is_refused(harness: DaemonHarness) -> None:
    """A live run and an unknown run cannot be retried."""
    run_id = harness.submit("sleep", "60")
    with pytest.raises(Conflict):
        harness.call("run.retry", run_id=run_id)
    with pytest.raises(NotFound):
        harness.call("run.retry", run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")


def test_a_retry_with_a_key_is_one_run(harness: DaemonHarness) -> None:
    """The same key again returns the same new run, so that a client can repeat a request whose reply was
    lost."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    retries = [harness.call("run.retry", run_id=run_id, key="k") for _ in range(2)]
    harness.run_ids |= {run["run_id"] for run in retries}
    assert retries[0]["run_id"] == retries[1]["run_id"] != run_id
    assert [run["duplicate"] for run in retries] == [False, True]
    with pytest.raises(InvalidParams):
        harness.call("run.retry", run_id=run_id, key="")


def test_a_lost_shim_is_retried_from_the_checkpoint(build: Build) -> None:
    """By default a lost shim is retried, and the next attempt continues from the checkpoint."""
    harness = workshop(build, timeouts={"grace_s": 0.5})
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "go"
    run_id = idle(harness, {**PATIENT, "retries": 1}, steps=6, save_at=[4], hang=True, hang_until=str(gate))
    wait_until(lambda: harness.get(run_id)["checkpoint"], bool, "a checkpoint is saved")
    (shim,) = harness.shims()
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: harness.get(run_id)["attempt"], lambda number: number == 2, "attempt 2")
    gate.touch()
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("succeeded", 2, 1)
    assert run["resumed_from"]["step"] == 4
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [4]
