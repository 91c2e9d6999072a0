"""Retries: by cause, with a bound on crash loops, from the last whole checkpoint; and `retry`, a new run."""

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


def test_by_default_only_the_machines_faults_are_retried(harness: DaemonHarness) -> None:
    """A program that fails is not run again for `retries` alone; `any` and single causes say so."""
    plain = harness.submit("false", retries=2)
    given = harness.submit("false", retries=1, retry_on=["exit_code"])
    every = harness.submit("false", retries=1, retry_on=["any"])
    both = harness.submit("false", retries=1, retry_on=["infrastructure", "exit_code"])
    assert [harness.ended(run_id)["attempt"] for run_id in (plain, given, every, both)] == [1, 2, 2, 2]
    assert "shim_lost" in harness.get(both)["retry_on"] and "by_user" not in harness.get(every)["retry_on"]


def test_words_that_are_no_cause_are_refused(harness: DaemonHarness) -> None:
    """A typo in retry_on is an error that lists the words, not a run that is never retried."""
    with pytest.raises(InvalidParams) as caught:
        harness.submit("true", retries=1, retry_on=["exit-code"])
    assert "any, infrastructure, exit_code" in caught.value.data["errors"][0]["rule"]


def test_a_crash_loop_stops_with_a_word(build: Build) -> None:
    """Attempts that die at once, so many in a row, are the last, whatever `retries` still allows."""
    harness = build(retries={"crash_loop_s": 5.0, "crash_loop_attempts": 3})
    run = harness.ended(harness.submit("sh", "-c", "exit 7", retries=50, retry_on=["any"]))
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("failed", 3, 2)
    assert run["cause"] == {"kind": "exit_code", "exit_code": 7, "crash_loop": True, "attempts": 3}
    assert "crash loop" in harness.ctl("show", run["run_id"]).stdout


@pytest.mark.slow
def test_an_attempt_that_lived_begins_the_count_anew(build: Build) -> None:
    """Only deaths in a row are a loop: one attempt that worked for a while in between breaks it."""
    harness = build(retries={"crash_loop_s": 4.0, "crash_loop_attempts": 3})
    script = 'test "$MOSAIC_ATTEMPT" = 3 && sleep 4.5; exit 7'
    run = harness.ended(harness.submit("sh", "-c", script, retries=20, retry_on=["any"]), 60.0)
    assert run["attempt"] == 6 and run["cause"]["crash_loop"] is True


def test_a_retry_goes_on_from_the_last_whole_checkpoint(build: Build) -> None:
    """The newest checkpoint is torn, so the one before it is loaded, and the run says which that was."""
    harness = workshop(build, retries={"crash_loop_attempts": 0})
    params = {**PATIENT, "retries": 1, "retry_on": ["exit_code"]}
    run_id = idle(harness, params, steps=10, save_at=[4, 8], tear_at=8, exit=3)
    run = harness.ended(run_id)
    assert (run["attempt"], run["retries_used"], run["cause"]["kind"]) == (2, 1, "exit_code")
    assert run["resumed_from"]["step"] == 4
    assert Path(run["resumed_from"]["path"]).name == "checkpoint-000000000004"
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [4]
    assert loaded(harness, run_id, 1) == []
    assert run["checkpoint"]["step"] == 8, "what it saved last, in its second attempt"
    assert harness.attempt(run_id, 1) != harness.attempt(run_id, 2)


def test_steps_count_over_attempts(build: Build) -> None:
    """`max_steps`: the worker's own count where it has one, which goes on, else all attempts' records."""
    harness = workshop(build, cpus={"slots": 4}, retries={"crash_loop_attempts": 0})
    params = {**PATIENT, "retries": 1, "retry_on": ["exit_code"], "max_steps": 15}
    own = idle(harness, params, steps=10, step_s=0.02, save_at=[10], die_at=10, wait=True)
    code = (  # the second attempt, too, goes no further than its tenth step: how far it comes is no race
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


def test_retry_is_a_new_run_that_goes_on(build: Build) -> None:
    """The new run names its origin and goes on from its checkpoint, exactly; `fresh` begins from nothing."""
    harness = workshop(build)
    config: dict[str, Any] = {"episodes": 200, "episode_delay_s": 0.025, "checkpoint_every_episodes": 5}
    first = train(harness, PATIENT, **config)
    wait_until(lambda: harness.get(first)["checkpoint"], bool, "it has saved")
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

    # What both learned is the same table: the one in two runs, the other in one.
    words = [harness.telemetry(run["run_id"])[-1]["data"]["payload"]["q_sha256"] for run in (again, fresh)]
    assert words[0] == words[1]

    # A retry of a retry that saved nothing itself finds the first one's.
    directory = harness.state_dir / "runs" / first / "files" / "checkpoints"
    assert spec_on_disk(harness, retried["run_id"])["resume_from"] == str(directory)


def test_a_retry_passes_over_what_is_torn(build: Build) -> None:
    """Where an origin left nothing but a torn checkpoint, the whole one before it is gone on from."""
    harness = workshop(build)
    first = idle(harness, PATIENT, steps=6, save_at=[4])
    assert harness.ended(first)["checkpoint"]["step"] == 4
    second = harness.call("run.retry", run_id=first)["run_id"]
    harness.run_ids.add(second)
    harness.ended(second)
    files = harness.state_dir / "runs" / second / "files"
    torn = files / "checkpoints" / "checkpoint-000000000009"
    shutil.copytree(files.parents[1] / first / "files" / "checkpoints" / "checkpoint-000000000004", torn)
    (torn / "state").write_bytes(b"torn")

    third = harness.call("run.retry", run_id=second)["run_id"]
    harness.run_ids.add(third)
    run = harness.ended(third)
    assert (run["outcome"], run["resumed_from"]["step"]) == ("succeeded", 4)


def test_retry_needs_the_environment_again(harness: DaemonHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are gone at the end: what was given on purpose and is missing now is listed, nothing is run."""
    script = 'echo "$SECRET_TOKEN-$SEED"'
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    done = harness.ctl("-o", "name", "submit", "-e", "SECRET_TOKEN", "-e", "SEED=7", "--", "sh", "-c", script)
    run_id = done.stdout.strip()
    harness.ended(run_id)
    refused = harness.ctl("retry", run_id)
    assert refused.returncode == 2 and "SECRET_TOKEN" in refused.stderr and "SEED" in refused.stderr
    assert len(harness.call("run.list")["runs"]) == 1

    done = harness.ctl("-o", "name", "retry", run_id, "-e", "SECRET_TOKEN", "-e", "SEED=8")
    assert done.returncode == 0, done.stderr
    second = done.stdout.strip()
    harness.ended(second)
    assert harness.stdout(second) == b"hush-8\n"
    assert harness.get(second)["digest"] != harness.get(run_id)["digest"], "other variables, other work"

    done = harness.ctl("-o", "json", "retry", "--allow-missing", run_id)
    assert done.returncode == 0, done.stderr
    third = harness.call("run.list", newest_first=True, limit=1)["runs"][0]
    assert third["origin"] == run_id
    harness.ended(third["run_id"])
    assert harness.stdout(third["run_id"]) == b"-\n"
    assert "hush" not in "".join(path.read_text() for path in harness.state_dir.glob("runs/*/spec.json"))


def test_retry_of_what_has_not_ended(harness: DaemonHarness) -> None:
    """A live run cannot be retried: it would be there twice.  Nor can one that never was."""
    run_id = harness.submit("sleep", "60")
    with pytest.raises(Conflict):
        harness.call("run.retry", run_id=run_id)
    with pytest.raises(NotFound):
        harness.call("run.retry", run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")


def test_a_retry_with_a_key_is_one_run(harness: DaemonHarness) -> None:
    """The same key again gives the same retry back: a lost reply may be asked for twice."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    retries = [harness.call("run.retry", run_id=run_id, key="k", allow_missing=True) for _ in range(2)]
    harness.run_ids |= {run["run_id"] for run in retries}
    assert retries[0]["run_id"] == retries[1]["run_id"] != run_id
    assert [run["duplicate"] for run in retries] == [False, True]
    with pytest.raises(InvalidParams):
        harness.call("run.retry", run_id=run_id, key="")


def test_a_lost_shim_is_retried_from_the_checkpoint(build: Build) -> None:
    """The default: a shim that is killed takes its attempt along, and the next one goes on."""
    harness = workshop(build, timeouts={"worker_grace_s": 0.5})
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "go"
    run_id = idle(harness, {**PATIENT, "retries": 1}, steps=6, save_at=[4], hang=True, go_on=str(gate))
    wait_until(lambda: harness.get(run_id)["checkpoint"], bool, "it has saved")
    (shim,) = harness.shims()
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: harness.get(run_id)["attempt"], lambda number: number == 2, "another attempt")
    gate.touch()
    run = harness.ended(run_id)
    assert (run["outcome"], run["attempt"], run["retries_used"]) == ("succeeded", 2, 1)
    assert run["resumed_from"]["step"] == 4
    assert [payload["global_step"] for payload in loaded(harness, run_id, 2)] == [4]
