"""Submission: configs of the original MOSAIC are accepted unchanged; invalid ones are refused as a whole."""

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
    """Return a TrainRunConfig as the original's form writes it, for a program that exits immediately."""
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
    """A config of the original runs; if it requests more CPUs than there are, it gets all of them."""
    run = harness.ended(harness.submit_config(config())["run_id"])

    assert run["outcome"] == "succeeded" and run["name"] == "form-default"
    assert harness.stdout(run["run_id"]) == b"worked\n"
    assert run["cpus"] == {"requested": 4, "granted": 2}


def test_every_error_is_reported_with_its_path(harness: DaemonHarness) -> None:
    """All faults of a config are reported at once with their paths, and nothing is created."""
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
    """While a run lives, the same config in any order of keys returns that run; afterwards it makes a new
    one."""
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


def test_a_run_id_in_the_config_is_used_and_unique(harness: DaemonHarness) -> None:
    """A valid ULID in the worker's config becomes the run id; with another config it is a conflict."""
    run_id = ulid.encode(1_795_000_000_000, os.urandom(10))
    own = config(metadata={"worker": {"config": {"run_id": run_id}}})
    run = harness.submit_config(own)
    assert run["run_id"] == run_id
    harness.ended(run_id)
    assert harness.submit_config(own)["run_id"] == run_id

    with pytest.raises(Conflict):
        harness.submit_config({**own, "arguments": ["-c", "print('other')"]})
    assert harness.stdout(run_id) == b"worked\n"


def test_a_key_returns_the_ended_run(harness: DaemonHarness) -> None:
    """The same key returns the same run, also after its end."""
    run_id = harness.submit("true", key="nightly-1")
    harness.ended(run_id)
    assert (
        harness.call("run.submit", command=["true"], key="nightly-1", cwd=str(harness.home))["run_id"]
        == run_id
    )


def test_mandatory_gpus_beyond_the_machine_are_refused(harness: DaemonHarness) -> None:
    """Mandatory GPUs that the machine does not have are refused immediately."""
    gpus = {"requested": 1, "mandatory": True}
    with pytest.raises(CapacityImpossible):
        harness.submit_config(config(resources={"cpus": 1, "memory_mb": 512, "gpus": gpus}))


def test_a_gpu_slot_has_one_run(build: Build) -> None:
    """Two runs never have the same GPU, and a third run waits."""
    harness = build(cpus={"slots": 8}, gpus={"static": 2})
    script = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"
    runs = [harness.python(script, gpus=1) for _ in range(3)]
    first, second = (harness.until(run_id, "EXEC") for run_id in runs[:2])

    assert sorted(first["slots"] + second["slots"]) == [0, 1]
    assert harness.get(runs[2])["state"] == "INIT"
    harness.call("run.stop", run_id=runs[0], grace_s=0)
    harness.ended(runs[0])
    assert harness.until(runs[2], "EXEC")["slots"] == first["slots"]


def test_secrets_are_in_one_file_and_removed_with_the_end(harness: DaemonHarness) -> None:
    """Values of secrets are in environment.json only, until the run ends."""
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
    wait_until((run_dir / "environment.json").exists, lambda exists: not exists, "the file is removed")


def test_a_dry_run_stores_nothing(harness: DaemonHarness) -> None:
    """dry_run checks everything, returns a run object, and stores nothing."""
    run = harness.call("run.submit", command=["true"], dry_run=True)
    assert run["state"] == "INIT" and harness.call("run.list")["runs"] == []


def test_a_command_needs_no_other_parameter(harness: DaemonHarness) -> None:
    """A command without further parameters runs with a minimal environment."""
    run = harness.call("run.submit", command=["env"])
    harness.run_ids.add(run["run_id"])
    harness.ended(run["run_id"])
    names = {line.split(b"=")[0].decode() for line in harness.stdout(run["run_id"]).splitlines()}
    assert {"PATH", "HOME", "USER", "LANG", "MOSAIC_RUN_ID"} <= names
    assert "VIRTUAL_ENV" not in names and "PYTHONPATH" not in names


def test_why_names_the_owners_of_earlier_runs(build: Build) -> None:
    """`why` names the owner of a run that starts earlier, instead of its uid."""
    harness = build(cpus={"slots": 1})
    harness.until(harness.submit("sleep", "60"), "EXEC")
    harness.submit("true")
    explanation = harness.call("run.explain", run_id=harness.submit("true"))
    [fact] = [fact for fact in explanation["facts"] if fact["fact"] == "queue"]
    assert fact["runs"][0]["owner"] == harness.call("daemon.hello")["user"]
