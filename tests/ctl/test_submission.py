"""The parameters that `submit` sends: commands with their environment, configs, configs for workers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    """Return a function that returns the parameters of the last submit; the daemon accepts every submit."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT", kind="command")
    daemon.handlers["daemon.health"] = lambda params, peer: {"containment": {}}
    daemon.handlers["worker.list"] = lambda params, peer: {"workers": WORKERS}
    return lambda: daemon.requests("run.submit")[-1]


Submitted = Callable[[], dict[str, Any]]


def test_every_option_is_sent_as_its_parameter(submitted: Submitted, ctl: Ctl) -> None:
    """Every option is sent as its parameter, in the unit of the parameter."""
    argv = (
        "submit -n nm -c 2 -g 1 -m 1.5G -t 1h30m -p 5 --retries 3 --retry-on oom --grace 0 --signal-to tree "
        "--signal sigusr1 "
        "--dedup fail -l a=b -l c=d --max-steps 10 --key k --cwd /tmp --hold -- true"
    )
    assert ctl(*argv.split())[0] == 0
    params = submitted()
    del params["caller_environment"], params["process"]
    assert params == {
        "command": ["true"], "cwd": "/tmp", "name": "nm", "cpus": 2, "gpus": 1, "memory_mb": 1536,
        "time_limit_s": 5400.0,
        "priority": 5, "retries": 3, "retry_on": ["oom"], "grace_s": 0.0, "dedup": "fail",
        "labels": {"a": "b", "c": "d"}, "max_steps": 10, "key": "k", "hold": True, "environment": {},
        "signal_to": "tree", "signal": "USR1",
    }  # fmt: skip


def test_options_that_are_not_given_are_not_sent(submitted: Submitted, ctl: Ctl) -> None:
    """Options that are not given are not sent, except a key, with which the submit can be repeated."""
    assert ctl("submit", "--", "true")[0] == 0
    assert set(submitted()) == {"command", "cwd", "environment", "caller_environment", "process", "key"}


def test_pwd_is_sent_if_it_names_the_working_directory(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If $PWD is a path to the working directory, that path is sent; a wrong $PWD is ignored."""
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
def test_config_is_read_as_json_or_toml(submitted: Submitted, ctl: Ctl, tmp_path: Path, name: str) -> None:
    """-f reads JSON and TOML, by suffix or by content; -e and --set change the config."""
    toml = (
        'run_name = "x"\n[environment]\nSEED = "1"\n'
        '[metadata.worker]\nmodule = "m"\n[metadata.worker.config]\na = 1\n'
    )
    (tmp_path / name).write_text(toml if name == "c.toml" else json.dumps(CONFIG))
    assert ctl("submit", "-f", str(tmp_path / name), "-e", "B=2", "--set", "b.c=[1]")[0] == 0
    params = submitted()
    config = params["config"]
    assert (config["environment"], params["environment"]) == ({"SEED": "1"}, {"B": "2"})
    assert config["metadata"]["worker"]["config"] == {"a": 1, "b": {"c": [1]}}


def test_config_is_read_from_standard_input(
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


def test_worker_and_set_make_a_config(submitted: Submitted, ctl: Ctl) -> None:
    """--worker KIND --set K=V makes a config; valid JSON values are parsed, dots make nested keys."""
    code, _, _ = ctl(
        "submit", "--worker", "tabular", *"--set env_id=Taxi-v3 --set n=2000 --set o.lr=0.5".split()
    )
    assert code == 0
    assert submitted()["config"] == {
        "run_name": "tabular-Taxi-v3",
        "entry_point": "/opt/t/bin/python",
        "arguments": ["-m", "mosaic_tabular"],
        "environment": {},
        "resources": {"cpus": 2, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {},
        "metadata": {
            "worker": {
                "worker_id": "tabular", "kind": "tabular", "module": "mosaic_tabular",
                "python": "/opt/t/bin/python", "config": {"env_id": "Taxi-v3", "n": 2000, "o": {"lr": 0.5}},
            }
        },
    }  # fmt: skip


def test_worker_that_needs_a_gpu_requests_one(submitted: Submitted, ctl: Ctl) -> None:
    """A worker with requires_gpu requests one mandatory GPU, or as many as -g says."""
    ctl("submit", "--worker", "deep")
    assert submitted()["config"]["resources"]["gpus"] == {"requested": 1, "mandatory": True}
    ctl("submit", "--worker", "deep", "-g", "4", "-n", "big")
    assert submitted()["config"]["resources"]["gpus"]["requested"] == 4
    assert submitted()["config"]["run_name"] == "big"


@pytest.mark.parametrize(("enforces", "is_told"), [(["pids", "cpu"], True), (["memory", "pids"], False)])
def test_a_memory_limit_that_cannot_be_set_is_told(
    submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl, enforces: list[str], is_told: bool
) -> None:
    """If the daemon cannot limit memory, `submit -m` is accepted and standard error has a line about it."""
    daemon.handlers["daemon.health"] = lambda params, peer: {
        "containment": {"holds": "cgroup2", "enforces": enforces}
    }
    code, _, err = ctl("submit", "-m", "1G", "--", "true")
    assert (code, submitted()["memory_mb"]) == (0, 1024)
    assert ("-m" in err) == is_told


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
def test_invalid_submit_exits_2_without_a_request(
    argv: list[str], words: str, submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """An invalid submit exits with 2 and an error with the option, and no submit is sent."""
    code, out, err = ctl("submit", *argv)
    assert (code, out) == (2, "")
    assert words in err
    assert not daemon.requests("run.submit")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.json", "{", "c.json: not JSON"),
        ("c.toml", "a = ", "c.toml: not TOML"),
        ("c.json", "[1]", "c.json: "),
        ("c.json", b"\xff{}", "not UTF-8"),
    ],
)
def test_file_that_is_no_config_exits_2(
    ctl: Ctl, daemon: ScriptedDaemon, tmp_path: Path, name: str, text: Any, words: str
) -> None:
    """A file that is no config exits with 2, its name and the error."""
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = ctl("submit", "-f", str(tmp_path / name))
    assert code == 2
    assert words in err


def test_submit_prints_id_object_or_duplicate(submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """-o name prints the id, -o json the run object; a duplicate is reported as not submitted again."""
    assert ctl("submit", "-o", "name", "--", "true")[1] == a_run()["run_id"] + "\n"
    assert json.loads(ctl("submit", "-o", "json", "--", "true")[1])["run_id"] == a_run()["run_id"]
    daemon.handlers["run.submit"] = lambda params, peer: a_run(duplicate=True)
    assert "not submitted again" in ctl("submit", "--", "true")[1]
    ended = a_run(duplicate=True, state="TERM", outcome="failed")
    daemon.handlers["run.submit"] = lambda params, peer: ended
    assert "ended, failed" in ctl("submit", "--key", "k", "--", "true")[1]


def test_dry_run_prints_the_answer_of_the_daemon(
    submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """--dry-run sends the submit with dry_run and prints the daemon's answer."""
    daemon.handlers["run.submit"] = lambda params, peer: {"argv": params["command"], "dry": params["dry_run"]}
    assert json.loads(ctl("submit", "--dry-run", "--", "true")[1]) == {"argv": ["true"], "dry": True}


def test_dry_run_without_a_daemon_prints_unchecked_parameters(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a daemon, --dry-run prints the parameters and reports that they are not checked."""
    monkeypatch.setenv("MOSAICD_SOCKET", str(tmp_path / "none"))
    code, out, err = ctl("submit", "--dry-run", "-c", "3", "--", "true")
    assert code == 0
    assert json.loads(out)["cpus"] == 3
    assert "not checked" in err
