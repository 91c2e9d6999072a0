"""What `submit` sends: commands with a part of the environment, configs, and configs made for a worker."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosaicctl.environment import handed_over, is_secret, shell_of
from tests.ctl.scripted import ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]

CONFIG = {
    "run_name": "x",
    "environment": {"SEED": "1"},
    "metadata": {"worker": {"module": "m", "config": {"a": 1}}},
}
WORKERS = [
    {
        "kind": "tabular", "module": "mosaic_tabular", "python": "/opt/t/bin/python",
        "metadata": {"version": "1"},
        "capabilities": {"requires_gpu": False, "cpu_cores": 2, "estimated_memory_mb": 100},
    },
    {"kind": "broken", "error": "its interpreter is gone"},
    {"kind": "deep", "module": "d", "python": "python3", "capabilities": {"requires_gpu": True}},
]  # fmt: skip


@pytest.fixture
def submitted(daemon: ScriptedDaemon) -> Callable[[], dict[str, Any]]:
    """A daemon that accepts anything, and the parameters it was given last."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT", kind="command")
    daemon.handlers["worker.list"] = lambda params, peer: {"workers": WORKERS}
    return lambda: daemon.asked("run.submit")[-1]


Submitted = Callable[[], dict[str, Any]]


def test_a_command_runs_here_with_a_part_of_my_environment(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain command gets the working directory and the allow-listed environment, and -e on top."""
    monkeypatch.setenv("VIRTUAL_ENV", "/v")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("SOMETHING", "else")
    assert ctl("submit", "-e", "A=1=2", "-e", "WANDB_API_KEY", "--", "sh", "-c", "exit 7")[0] == 0
    params = submitted()
    assert params["command"] == ["sh", "-c", "exit 7"]
    assert os.path.samefile(params["cwd"], os.getcwd())
    environment = params["environment"]
    assert environment["VIRTUAL_ENV"] == "/v"
    assert environment["A"] == "1=2"
    assert environment["WANDB_API_KEY"] == "k"
    assert environment["PATH"] == os.environ["PATH"]
    assert "SOMETHING" not in environment
    assert "AWS_SECRET_ACCESS_KEY" not in environment


def test_every_option_is_sent_under_its_name(submitted: Submitted, ctl: Ctl) -> None:
    """-n -c -g -t -p --retries --grace --dedup -l --hold and the rest, with their units."""
    argv = (
        "submit -n nm -c 2 -g 1 -t 1h30m -p 5 --retries 3 --retry-on oom --grace 0 "
        "--dedup fail -l a=b -l c=d --max-steps 10 --key k --cwd /tmp --hold -- true"
    )
    assert ctl(*argv.split())[0] == 0
    params = submitted()
    del params["environment"]
    assert params == {
        "command": ["true"], "cwd": "/tmp", "name": "nm", "cpus": 2, "gpus": 1, "time_limit_s": 5400.0,
        "priority": 5, "retries": 3, "retry_on": ["oom"], "grace_s": 0.0, "dedup": "fail",
        "labels": {"a": "b", "c": "d"}, "max_steps": 10, "key": "k", "hold": True,
    }  # fmt: skip


def test_nothing_is_sent_that_was_not_said(submitted: Submitted, ctl: Ctl) -> None:
    """What the caller leaves open, the daemon decides; only a key is made, so that it may be asked twice."""
    assert ctl("submit", "--", "true")[0] == 0
    assert set(submitted()) == {"command", "cwd", "environment", "key"}


def test_the_shells_name_of_the_directory_is_kept(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where $PWD names the working directory through a link, that name is sent; a stale $PWD is not."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    ctl("submit", "--", "true")
    assert submitted()["cwd"] == str(tmp_path / "link")
    monkeypatch.setenv("PWD", "/")
    ctl("submit", "--", "true")
    assert submitted()["cwd"] == str(tmp_path / "real")


@pytest.mark.parametrize("name", ["c.json", "c.toml", "c.txt"])
def test_a_config_is_json_or_toml(submitted: Submitted, ctl: Ctl, tmp_path: Path, name: str) -> None:
    """-f takes both forms, by ending or by looks; -e merges into the config's environment."""
    toml = (
        'run_name = "x"\n[environment]\nSEED = "1"\n'
        '[metadata.worker]\nmodule = "m"\n[metadata.worker.config]\na = 1\n'
    )
    (tmp_path / name).write_text(toml if name == "c.toml" else json.dumps(CONFIG))
    assert ctl("submit", "-f", str(tmp_path / name), "-e", "B=2", "--set", "b.c=[1]")[0] == 0
    config = submitted()["config"]
    assert config["environment"] == {"SEED": "1", "B": "2"}
    assert config["metadata"]["worker"]["config"] == {"a": 1, "b": {"c": [1]}}


def test_a_config_from_standard_input(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-f -` reads standard input."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, json.dumps(CONFIG).encode())
    os.close(write_fd)
    with os.fdopen(read_fd) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert ctl("submit", "-f", "-")[0] == 0
    assert submitted()["config"] == CONFIG


def test_a_config_gets_only_what_describes_the_shell(
    submitted: Submitted, ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same config from two terminals stays one: PYTHONPATH and the like do not slip into it."""
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("LANG", "C.UTF-8")
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    ctl("submit", "-f", str(tmp_path / "c.json"))
    environment = submitted()["environment"]
    assert environment["LANG"] == "C.UTF-8"
    assert "PATH" in environment
    assert "PYTHONPATH" not in environment


def test_a_worker_gets_a_config_of_its_own(submitted: Submitted, ctl: Ctl) -> None:
    """--worker KIND --set K=V makes a TrainRunConfig: values are JSON where they parse, dots nest."""
    code, _, _ = ctl(
        "submit", "--worker", "tabular", *"--set env_id=Taxi-v3 --set n=2000 --set o.lr=0.5".split()
    )
    assert code == 0
    assert submitted()["config"] == {
        "run_name": "tabular-Taxi-v3",
        "entry_point": "/opt/t/bin/python",
        "arguments": ["-m", "mosaic_tabular"],
        "environment": {},
        "resources": {"cpus": 2, "memory_mb": 256, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {},
        "metadata": {
            "worker": {
                "worker_id": "tabular", "kind": "tabular", "module": "mosaic_tabular",
                "python": "/opt/t/bin/python", "config": {"env_id": "Taxi-v3", "n": 2000, "o": {"lr": 0.5}},
            }
        },
    }  # fmt: skip


def test_a_worker_that_needs_a_gpu_asks_for_one(submitted: Submitted, ctl: Ctl) -> None:
    """requires_gpu makes one mandatory GPU; -g says how many."""
    ctl("submit", "--worker", "deep")
    assert submitted()["config"]["resources"]["gpus"] == {"requested": 1, "mandatory": True}
    ctl("submit", "--worker", "deep", "-g", "4", "-n", "big")
    assert submitted()["config"]["resources"]["gpus"]["requested"] == 4
    assert submitted()["config"]["run_name"] == "big"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--worker", "tabluar"], "tabluar; installed: broken, deep, tabular"),
        (["--worker", "broken"], "its interpreter is gone"),
        (["--worker", "tabular", "--set", "x"], "--set x"),
        (["--worker", "tabular", "--set", "a=1", "--set", "a.b=1"], "--set a.b=1"),
        (["--set", "a=1", "--", "true"], "--worker or -f"),
        ([], "--worker"),
        (["-f", "x.json", "--", "true"], "--worker"),
        (["-f", "/nonexistent/x.json"], "No such file or directory"),
        (["-e", "=x", "--", "true"], "-e =x"),
        (["-e", "NO_SUCH_VARIABLE_HERE", "--", "true"], "-e NO_SUCH_VARIABLE_HERE"),
        (["-t", "soon", "--", "true"], "-t/--time: 'soon'"),
    ],
)
def test_what_makes_no_sense_is_told_before_it_is_sent(
    argv: list[str], words: str, submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """Exit 2, a sentence that helps, and no submit."""
    code, out, err = ctl("submit", *argv)
    assert (code, out) == (2, "")
    assert words in err
    assert not daemon.asked("run.submit")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.json", "{", "c.json: not JSON"),
        ("c.toml", "a = ", "c.toml: not TOML"),
        ("c.json", "[1]", "c.json: "),
        ("c.json", b"\xff{}", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_config(
    ctl: Ctl, daemon: ScriptedDaemon, tmp_path: Path, name: str, text: Any, words: str
) -> None:
    """A file that cannot be read as a config is named with its fault."""
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = ctl("submit", "-f", str(tmp_path / name))
    assert code == 2
    assert words in err


def test_output_forms(submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """-o name prints the id alone, -o json the run object, and an attached twin is told."""
    assert ctl("submit", "-o", "name", "--", "true")[1] == a_run()["run_id"] + "\n"
    assert json.loads(ctl("submit", "-o", "json", "--", "true")[1])["run_id"] == a_run()["run_id"]
    daemon.handlers["run.submit"] = lambda params, peer: a_run(duplicate=True)
    assert "not submitted again" in ctl("submit", "--", "true")[1]
    ended = a_run(duplicate=True, state="TERM", outcome="failed")
    daemon.handlers["run.submit"] = lambda params, peer: ended
    assert "ended, failed" in ctl("submit", "--key", "k", "--", "true")[1]


def test_dry_run_asks_the_daemon(submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """--dry-run lets the daemon check and prints its answer."""
    daemon.handlers["run.submit"] = lambda params, peer: {"argv": params["command"], "dry": params["dry_run"]}
    assert json.loads(ctl("submit", "--dry-run", "--", "true")[1]) == {"argv": ["true"], "dry": True}


def test_dry_run_without_a_daemon(ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a daemon, --dry-run prints what would be sent and says that it is unchecked."""
    monkeypatch.setenv("MOSAICD_SOCKET", str(tmp_path / "none"))
    code, out, err = ctl("submit", "--dry-run", "-c", "3", "--", "true")
    assert code == 0
    assert json.loads(out)["cpus"] == 3
    assert "not checked" in err


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SSH_AUTH_SOCK"]
)
def test_secrets_do_not_go_by_themselves(name: str) -> None:
    """A variable whose name says secret is never handed over unasked."""
    assert is_secret(name)
    assert handed_over({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("PATH", True), ("LC_ALL", True), ("CONDA_PREFIX", True), ("HF_HOME", True), ("https_proxy", True),
        ("LD_LIBRARY_PATH", True), ("XDG_CACHE_HOME", True), ("XDG_RUNTIME_DIR", False), ("DISPLAY", False),
        ("CUDA_VISIBLE_DEVICES", False), ("SHLVL", False), ("DBUS_SESSION_BUS_ADDRESS", False),
        ("LD_PRELOAD", False),
    ],
)  # fmt: skip
def test_the_allow_list(name: str, goes: bool) -> None:
    """What a run needs goes along; what belongs to the session, or to the slots, stays."""
    assert (name in handed_over({name: "x"})) is goes


def test_values_that_cannot_be_sent_are_left_out() -> None:
    """A value that is not UTF-8 does not break the submit."""
    assert shell_of({"PATH": "/bin", "LANG": "\udcff"}) == {"PATH": "/bin"}
