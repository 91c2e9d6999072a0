"""The environment of a run is that of its submitter: what is handed over, and what an attach says."""

import json
import resource
import sys
from typing import Any

import pytest

from tests.daemon.test_submit import config
from tests.daemon.workshop import config_of, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness

#: Variables that users export for their programs.
EXPORTED = {
    "LR": "3e-4", "SEED": "7", "DATA_DIR": "/data", "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false", "PYENV_VERSION": "3.11", "WANDB_API_KEY": "0123456789abcdef",
    "HF_TOKEN": "hf_0123456789",
}  # fmt: skip
_PRINT = "import json, os; print(json.dumps(dict(os.environ)))"


def submitted(harness: DaemonHarness, *arguments: str, verb: str = "submit") -> str:
    """Submit with mosaicctl and return the id of the run."""
    done = harness.ctl("-o", "name", verb, *arguments)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    harness.run_ids.add(run_id)
    return run_id


def environment_of_run(harness: DaemonHarness, run_id: str) -> dict[str, str]:
    """Return the environment that a run has printed."""
    assert harness.ended(run_id)["outcome"] == "succeeded"
    found: dict[str, str] = json.loads(harness.stdout(run_id))
    return found


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Export the variables of a user, and of another launcher."""
    for name, value in {**EXPORTED, "SLURM_JOB_ID": "5", "SSH_AUTH_SOCK": "/tmp/agent", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    return EXPORTED


def test_a_command_has_the_callers_environment(harness: DaemonHarness, exported: dict[str, str]) -> None:
    """A command sees every exported variable but those of the session and of other launchers."""
    run_id = submitted(harness, "-e", "RANK=3", "--env-drop", "SEE?", "--", sys.executable, "-c", _PRINT)
    found = environment_of_run(harness, run_id)
    expected = {**exported, "RANK": "3"}
    del expected["SEED"]
    assert {name: found.get(name) for name in expected} == expected
    assert not {"SLURM_JOB_ID", "SSH_AUTH_SOCK", "SEED"} & found.keys()


def test_a_config_has_the_callers_environment(
    harness: DaemonHarness, exported: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config sees the exported variables, below its own; its digest does not depend on them."""
    own = config(arguments=["-c", _PRINT], environment={"SEED": "config"})
    path = harness.home / "c.json"
    path.write_text(json.dumps(own))
    first = submitted(harness, "-f", str(path))
    found = environment_of_run(harness, first)
    assert {name: found.get(name) for name in exported} == {**exported, "SEED": "config"}
    monkeypatch.setenv("LR", "1")
    second = submitted(harness, "-f", str(path))
    assert environment_of_run(harness, second)["LR"] == "1"
    assert harness.get(first)["digest"] == harness.get(second)["digest"]


def test_a_worker_has_the_callers_environment(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """--worker hands the environment over like the other forms."""
    harness = workshop(build)
    monkeypatch.setenv("FOR_THE_WORKER", "yes")
    run_id = submitted(harness, "--worker", "idler", "--set", "wait=true")
    pid = harness.until(run_id, "EXEC")["pid"]
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert b"FOR_THE_WORKER=yes" in file.read().split(b"\0")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["name"] == config_of("idler")["run_name"]


def test_env_clean_gives_the_allow_list(harness: DaemonHarness, exported: dict[str, str]) -> None:
    """With --env-clean only the allow-list arrives, and what -e names."""
    run_id = submitted(harness, "--env-clean", "-e", "LR", "--", sys.executable, "-c", _PRINT)
    found = environment_of_run(harness, run_id)
    assert found["LR"] == exported["LR"] and "PATH" in found
    assert not (exported.keys() - {"LR"}) & found.keys()


def test_an_attach_names_the_variables_that_differ(harness: DaemonHarness) -> None:
    """If a submit attaches to a live run whose environment differs, the reply has the names, no values."""
    slow = config(arguments=["-c", "import time; time.sleep(60)"])

    def submit(**caller: str) -> dict[str, Any]:
        return harness.submit_config(slow, caller_environment=caller)

    first = submit(A="same-value", B="old-value", GONE="old-value")
    assert "differing_variables" not in first and "differing_variables" not in submit(
        A="same-value", B="old-value", GONE="old-value"
    )
    again = submit(A="same-value", B="new-value", NEW="new-value", TRACK_WANDB="below the config")
    assert again["run_id"] == first["run_id"] and again["differing_variables"] == ["B", "GONE", "NEW"]
    assert "-value" not in json.dumps(again)
    harness.call("run.stop", run_id=first["run_id"], grace_s=0)
    harness.ended(first["run_id"])


def test_the_largest_environment_that_the_client_sends_arrives(harness: DaemonHarness) -> None:
    """The daemon accepts what the client may send: the run starts with 900 KB of variables."""
    path = harness.home / "env"
    path.write_text("".join(f"BIG{number}={'x' * 90_000}\n" for number in range(10)))
    script = "import os; print(sum(len(v) for k, v in os.environ.items() if k.startswith('BIG')))"
    run_id = submitted(harness, "--env-file", str(path), "--", sys.executable, "-c", script)
    assert harness.ended(run_id)["outcome"] == "succeeded"
    assert harness.stdout(run_id) == b"900000\n"


def test_an_environment_that_exec_refuses_is_told_in_the_cause(build: Build) -> None:
    """If execve refuses the size, the cause has total, limit, the three largest names and --env-drop."""
    harness = build(start=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (512 << 10, hard))
    try:
        harness.start()
        run_id = harness.submit("true", caller_environment=dict.fromkeys("ABCD", "x" * 50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    run = harness.ended(run_id)
    assert run["cause"]["kind"] == "spawn_failed"
    for words in ("is 131072; ", "--env-drop", "A (50003), B (50003), C (50003)"):
        assert words in run["cause"]["error"]
