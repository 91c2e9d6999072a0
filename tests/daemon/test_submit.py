"""Submission: configs of the original are accepted unchanged, broken ones are refused whole."""

import json
import os
import sys
from typing import Any

import pytest

from mosaicd.protocol import ulid
from mosaicd.protocol.errors import CapacityImpossible, Conflict, InvalidParams
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def config(**changes: Any) -> dict[str, Any]:
    """A TrainRunConfig as the original's form writes it, for a program that exits at once."""
    return {
        "run_name": "form-default",
        "entry_point": sys.executable,
        "arguments": ["-c", "print('worked')"],
        "environment": {"TRACK_WANDB": "0"},
        "resources": {"cpus": 4, "memory_mb": 2048, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {"output_prefix": "runs/form-default", "persist_logs": True, "keep_checkpoints": False},
        "metadata": {"ui": {"worker_id": "x"}, "artifacts": {"notes": None}},
        **changes,
    }


def test_config_is_accepted_and_runs(harness: DaemonHarness) -> None:
    """cpus above the machine are granted what there is; the program runs; the digest is stable."""
    run = harness.ended(harness.submit_config(config())["run_id"])

    assert run["outcome"] == "succeeded" and run["name"] == "form-default"
    assert harness.stdout(run["run_id"]) == b"worked\n"
    assert run["cpus"] == {"requested": 4, "granted": 2}


def test_every_error_is_reported_with_its_path(harness: DaemonHarness) -> None:
    """All faults at once, nothing left behind."""
    broken = config(run_name="", resources={"cpus": 0, "memory_mb": 1, "gpus": {"requested": 9}}, typo=1)
    with pytest.raises(InvalidParams) as caught:
        harness.call("run.submit", config=broken)

    paths = {fault["path"] for fault in caught.value.data["errors"]}
    assert {"run_name", "resources.cpus", "resources.memory_mb", "resources.gpus.requested", "typo"} <= {
        p.removeprefix("config.") for p in paths
    }
    assert harness.call("run.list")["runs"] == []
    assert os.listdir(harness.state_dir / "runs") == []


def test_same_config_attaches_to_the_live_run(harness: DaemonHarness) -> None:
    """A config submitted twice is one run while it lives, in any key order, and a new one afterwards."""
    slow = config(arguments=["-c", "import time; time.sleep(60)"])
    first = harness.submit_config(slow)
    again = harness.submit_config(dict(reversed(slow.items())))
    assert again["run_id"] == first["run_id"] and again["duplicate"] is True and first["duplicate"] is False

    with pytest.raises(Conflict):
        harness.submit_config(slow, dedup="fail")
    other = harness.submit_config(slow, dedup="new")
    assert other["run_id"] != first["run_id"]
    for run_id in (first["run_id"], other["run_id"]):
        harness.call("run.stop", run_id=run_id, grace_s=0)
        harness.ended(run_id)
    assert harness.submit_config(slow)["duplicate"] is False


def test_own_run_id_is_kept_and_never_given_twice(harness: DaemonHarness) -> None:
    """A valid ULID in the worker's config becomes the run's id; with another config it is a conflict."""
    run_id = ulid.encode(1_795_000_000_000, os.urandom(10))
    own = config(metadata={"worker": {"config": {"run_id": run_id}}})
    run = harness.submit_config(own)
    assert run["run_id"] == run_id
    harness.ended(run_id)
    assert harness.submit_config(own)["run_id"] == run_id

    with pytest.raises(Conflict):
        harness.submit_config({**own, "arguments": ["-c", "print('other')"]})
    assert harness.stdout(run_id) == b"worked\n"


def test_idempotency_key_finds_the_ended_run(harness: DaemonHarness) -> None:
    """The same key gives the same run back, ended or not."""
    run_id = harness.submit("true", key="nightly-1")
    harness.ended(run_id)
    assert (
        harness.call("run.submit", command=["true"], key="nightly-1", cwd=str(harness.home))["run_id"]
        == run_id
    )


def test_mandatory_gpus_beyond_the_machine_are_refused(harness: DaemonHarness) -> None:
    """What this machine can never give is refused at once."""
    gpus = {"requested": 1, "mandatory": True}
    with pytest.raises(CapacityImpossible):
        harness.submit_config(config(resources={"cpus": 1, "memory_mb": 512, "gpus": gpus}))


def test_gpu_slots_are_held_alone(build: Build) -> None:
    """Two runs never see the same GPU, and a third waits."""
    harness = build(cpus={"slots": 8}, gpus={"static": 2})
    script = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"
    runs = [harness.python(script, gpus=1) for _ in range(3)]
    first, second = (harness.until(run_id, "EXEC") for run_id in runs[:2])

    assert sorted(first["slots"] + second["slots"]) == [0, 1]
    assert harness.get(runs[2])["state"] == "INIT"
    harness.call("run.stop", run_id=runs[0], grace_s=0)
    harness.ended(runs[0])
    assert harness.until(runs[2], "EXEC")["slots"] == first["slots"]


def test_secrets_are_in_one_file_only_and_go_with_the_run(harness: DaemonHarness) -> None:
    """Environment values are not in the registry, spec.json, replies, logs or the shim's command line."""
    run_id = harness.submit("sh", "-c", 'test -n "$TOKEN" && sleep 60', environment={"TOKEN": "s3cr3t-value"})
    run = harness.until(run_id, "EXEC")
    run_dir = harness.state_dir / "runs" / run_id
    holders = [
        str(path.relative_to(harness.home))
        for path in harness.home.rglob("*")
        if path.is_file() and b"s3cr3t-value" in path.read_bytes()
    ]
    assert holders == [f"state/runs/{run_id}/environment.json"]
    assert (run_dir / "environment.json").stat().st_mode & 0o777 == 0o600
    assert "s3cr3t-value" not in json.dumps(run)
    harness.call("run.stop", run_id=run_id)
    harness.ended(run_id)
    wait_until((run_dir / "environment.json").exists, lambda there: not there, "the values go with the run")


def test_dry_run_keeps_nothing(harness: DaemonHarness) -> None:
    """dry_run checks everything, answers a run object, and leaves nothing behind."""
    run = harness.call("run.submit", command=["true"], dry_run=True)
    assert run["state"] == "INIT" and harness.call("run.list")["runs"] == []


def test_command_alone_suffices(harness: DaemonHarness) -> None:
    """A bare command runs in the owner's home with a minimal environment."""
    run = harness.call("run.submit", command=["env"])
    harness.run_ids.add(run["run_id"])
    harness.ended(run["run_id"])
    names = {line.split(b"=")[0].decode() for line in harness.stdout(run["run_id"]).splitlines()}
    assert {"PATH", "HOME", "USER", "LANG", "MOSAIC_RUN_ID"} <= names
    assert "VIRTUAL_ENV" not in names and "PYTHONPATH" not in names


def test_who_goes_before_is_named(build: Build) -> None:
    """`why` calls the owner of a run that goes before by name, not by number."""
    harness = build(cpus={"slots": 1})
    harness.until(harness.submit("sleep", "60"), "EXEC")
    harness.submit("true")
    told = harness.call("run.explain", run_id=harness.submit("true"))
    [fact] = [fact for fact in told["facts"] if fact["fact"] == "queue"]
    assert fact["runs"][0]["owner"] == harness.call("daemon.hello")["user"]
