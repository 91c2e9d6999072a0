"""The environment of a run is that of its submitter: what is handed over, and what an attach says."""

import json
import resource
import sys
from typing import Any

import pytest

from mosaicd.log import Catalogue
from tests.daemon.test_submit import config
from tests.daemon.workshop import config_of, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

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


def copies(harness: DaemonHarness, value: str) -> list[str]:
    """Return the files below the harness that contain `value`, without its log, each inode once."""
    found: dict[int, str] = {}
    for path in sorted(harness.home.rglob("*")):
        if path.is_file() and value.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o777 == 0o600, path
            found.setdefault(path.stat().st_ino, path.name)
    return sorted(found.values())


def test_runs_of_one_shell_share_one_copy_of_its_variables(harness: DaemonHarness) -> None:
    """A sweep keeps one copy of the shell's variables, in files of mode 0600, and no value elsewhere."""
    shell = {"LR": "value-of-the-shell", "HF_TOKEN": "value-of-a-secret", "API_KEY": "s"}
    runs = [
        harness.submit("true", caller_environment=shell, environment={"SEED": f"value-of-seed-{number}"})
        for number in range(3)
    ]
    for run_id in runs:
        harness.ended(run_id)
    directory = harness.state_dir / "environments"
    (shared,) = directory.iterdir()
    assert shared.stat().st_nlink == 4
    assert json.loads(shared.read_text()) == {"LR": "value-of-the-shell", "API_KEY": "s"}
    assert copies(harness, "value-of-the-shell") == [shared.name]
    assert copies(harness, "value-of-seed-1") == ["given-environment.json"]
    wait_until(lambda: copies(harness, "value-of-a-secret"), lambda left: not left, "the secrets are removed")
    assert "value-of" not in json.dumps([harness.get(runs[0]), harness.events(runs[0])])

    harness.call("run.prune", runs=runs[:1])
    wait_until(lambda: shared.stat().st_nlink, lambda links: links == 3, "the link of the run is removed")
    harness.call("run.prune", runs=runs[1:])
    wait_until(lambda: list(directory.iterdir()), lambda left: not left, "the shared file is removed")


def test_a_shared_file_that_no_run_has_is_removed_at_the_start(harness: DaemonHarness) -> None:
    """If the daemon was killed before it could remove a shared file, the next daemon removes it."""
    kept = harness.submit("true", caller_environment={"A": "kept"})
    left = harness.submit("true", caller_environment={"A": "left"})
    for run_id in (kept, left):
        harness.ended(run_id)
    harness.kill()
    (harness.state_dir / "runs" / left / "caller-environment.json").unlink()
    harness.start()
    directory = harness.state_dir / "environments"
    wait_until(lambda: len(list(directory.iterdir())), lambda count: count == 1, "one shared file is left")
    assert harness.call("run.environment", run_id=kept)["variables"] == {"A": "kept"}


def test_show_env_prints_the_environment_without_secrets(
    harness: DaemonHarness, exported: dict[str, str]
) -> None:
    """`show --env` prints the variables of the run to its owner, and only the names of secrets."""
    run_id = submitted(harness, "-e", "SEED=a b", "--", "true")
    harness.ended(run_id)
    printed = harness.ctl("show", "--env", run_id).stdout
    assert "LR=3e-4\n" in printed and "SEED='a b'\n" in printed and "# HF_TOKEN" in printed
    assert exported["HF_TOKEN"] not in printed
    found = json.loads(harness.ctl("-o", "json", "show", "--env", run_id).stdout)
    assert found["variables"]["LR"] == "3e-4" and {"HF_TOKEN", "WANDB_API_KEY"} <= set(found["secrets"])


def test_the_words_of_secrets_are_a_setting(build: Build) -> None:
    """[environment] secret_words replaces the list; a URL with a password is a secret all the same."""
    harness = build(environment={"secret_words": ["licence"]})
    shell = {"HF_TOKEN": "0123456789", "my_licence": "0123456789", "URL": "ftp://u:p@host"}
    run_id = harness.submit("true", caller_environment=shell)
    harness.ended(run_id)
    found = harness.call("run.environment", run_id=run_id)
    assert found["variables"] == {"HF_TOKEN": "0123456789"} and found["secrets"] == ["URL", "my_licence"]


def test_a_run_whose_variables_are_lost_does_not_start(harness: DaemonHarness) -> None:
    """If the file with the shell's variables is removed while the run waits, the run does not start."""
    harness.allow(Catalogue.LAUNCH_FAILED)
    run_id = harness.submit("true", caller_environment={"A": "1"}, hold=True)
    (harness.state_dir / "runs" / run_id / "caller-environment.json").unlink()
    harness.call("run.release", run_id=run_id)
    cause = harness.ended(run_id)["cause"]
    assert cause["kind"] == "spawn_failed" and "A" in cause["error"]


def test_a_lost_registry_loses_no_environment(harness: DaemonHarness) -> None:
    """After the registry is lost, an ended run still has its variables, and its shared file stays."""
    harness.allow(Catalogue.REGISTRY_REBUILT)
    first = harness.submit("sh", "-c", 'echo "$A$B"', caller_environment={"A": "1"}, environment={"B": "2"})
    harness.ended(first)
    harness.wait_until_cleaned_up(first)
    harness.kill()
    for path in harness.state_dir.glob("registry.sqlite3*"):
        path.unlink()
    harness.start()
    assert harness.call("run.environment", run_id=first)["variables"] == {"A": "1", "B": "2"}
    again = harness.call("run.retry", run_id=first)["run_id"]
    harness.run_ids.add(again)
    harness.ended(again)
    assert harness.stdout(again) == b"12\n"
    (shared,) = (harness.state_dir / "environments").iterdir()
    assert shared.stat().st_nlink == 3


def test_secrets_that_are_lost_are_told(harness: DaemonHarness) -> None:
    """If environment.json has lost its secrets while the run waits, the run does not start without them."""
    harness.allow(Catalogue.LAUNCH_FAILED)
    run_id = harness.submit("true", caller_environment={"HF_TOKEN": "0123456789"}, hold=True)
    (harness.state_dir / "runs" / run_id / "environment.json").write_text("")
    harness.call("run.release", run_id=run_id)
    cause = harness.ended(run_id)["cause"]
    assert cause["kind"] == "spawn_failed" and "HF_TOKEN" in cause["error"]
