"""The environment that `submit` hands over: everything, less the table; -e, --env-file, --env-drop."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosaicctl import environment
from mosaicctl.environment import capture, left_out_line
from mosaicctl.exits import UsageError
from mosaicctl.variables import read_variables
from mosaicd.core.digest import SET_BY_LAUNCH
from mosaicd.protocol.exec_sizes import exec_bytes, exec_limit_bytes
from mosaicd.protocol.rundir import temporary_path
from mosaicd.protocol.secrets import is_secret
from tests.ctl.scripted import ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]
Submitted = Callable[[], dict[str, Any]]
ARGV = ["/bin/true"]

#: Variables that a user exports for a program, none of which the first allow-list had.
FOR_THE_PROGRAM = (
    "LR", "SEED", "DATA_DIR", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG", "TOKENIZERS_PARALLELISM",
    "PYENV_VERSION", "SC2PATH", "SUMO_HOME", "WANDB_API_KEY", "HF_TOKEN", "OMP_NUM_THREADS", "TQDM_DISABLE",
    "LD_PRELOAD", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "MOSAIC_ROOT", "PATH", "TMPDIR", "a.b%%",
)  # fmt: skip
OF_THE_SESSION = (
    "SSH_AUTH_SOCK", "SSH_TTY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_SESSION_ID", "DISPLAY",
    "WAYLAND_DISPLAY", "XAUTHORITY", "TMUX", "TMUX_PANE", "STY", "SHLVL", "_", "OLDPWD", "LISTEN_FDS",
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM",
)  # fmt: skip
OF_A_LAUNCHER = (
    "SLURM_JOB_ID", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PBS_JOBID", "TORCHELASTIC_RUN_ID",
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RAY_JOB_ID", "MAKEFLAGS", "MAKELEVEL",
)  # fmt: skip


@pytest.fixture
def submitted(daemon: ScriptedDaemon) -> Submitted:
    """Return a function that returns the parameters of the last submit; the daemon accepts every submit."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT", kind="command")
    return lambda: daemon.requests("run.submit")[-1]


@pytest.mark.parametrize("name", FOR_THE_PROGRAM)
def test_a_variable_of_the_caller_is_handed_over(name: str) -> None:
    """Every variable that is in no pattern of the table is handed over."""
    assert capture({name: "x"}).values == {name: "x"}


@pytest.mark.parametrize("name", OF_THE_SESSION)
def test_a_variable_of_the_session_is_left_out_without_a_word(name: str) -> None:
    """What belongs to the session is left out, and the line does not name it."""
    captured = capture({name: "x"})
    assert not captured.values and left_out_line(captured, ()) == ""


@pytest.mark.parametrize("name", OF_A_LAUNCHER)
def test_a_variable_of_another_launcher_is_left_out_and_told(name: str) -> None:
    """What another launcher meant for its own process is left out; the line names it or its pattern."""
    captured = capture({name: "x"})
    ((_, pattern, _),) = captured.left_out
    assert not captured.values and f" {pattern} " in left_out_line(captured, ())
    assert left_out_line(captured, {name}) == "", "-e passes it"


def test_the_names_that_a_launch_sets_are_left_out_and_told() -> None:
    """The names that mosaicd sets are left out, but the GPUs, about which the daemon decides."""
    assert set(environment.LEFT_OUT[environment.LAUNCH]) >= SET_BY_LAUNCH - {"PWD"}
    assert "PWD" in environment.LEFT_OUT[environment.SESSION], "no news to the user"
    captured = capture(dict.fromkeys(("RUN_ID", "WORKER_ID"), "x"))
    assert not captured.values and "RUN_ID, WORKER_ID" in left_out_line(captured, ())


def test_the_variables_of_a_run_that_submits_are_left_out_without_a_word() -> None:
    """A run that submits another run passes neither its own names nor its temporary directory."""
    temporary = temporary_path("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1)
    own = {"MOSAIC_RUN_ID": "x", "RUN_ID": "x", "TMPDIR": temporary, "A": "1"}
    captured = capture(own)
    assert captured.values == {"A": "1"} and left_out_line(captured, ()) == ""
    assert capture({"TMPDIR": temporary}).values == {"TMPDIR": temporary}


def test_names_and_values_that_are_not_utf8_are_left_out_and_told() -> None:
    """A name or value that is not UTF-8 cannot be sent: the line names it with \\xNN."""
    captured = capture({"A": "x", "B": os.fsdecode(b"\xff"), os.fsdecode(b"C\xfe"): "x"})
    assert captured.values == {"A": "x"}
    line = left_out_line(captured, ())
    assert "B" in line and "C\\xfe" in line and line.isascii() and line.count("\n") == 1


def test_drop_patterns_are_globs_and_not_told() -> None:
    """--env-drop takes globs, upper and lower case differ, and the line does not name what it drops."""
    exported = dict.fromkeys(("LS_COLORS", "ls_x", "A1", "A22", "RANK"), "x")
    found = capture(exported, ["LS_*", "A?", "RANK"])
    assert found.values == {"ls_x": "x", "A22": "x"} and not found.left_out


def test_submit_sends_the_callers_variables_beside_the_chosen_ones(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The shell's variables are caller_environment; -e and --env-file are environment; -e has precedence."""
    monkeypatch.setenv("LR", "3e-4")
    monkeypatch.setenv("SEED", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LS_COLORS", "x")
    (tmp_path / "env").write_text("# a comment\nSEED=2\nexport B='b c'\n")
    code, _, err = ctl(
        "submit", "-e", "A=1=2", "-e", "SEED=3", "--env-file", str(tmp_path / "env"), "--env-drop", "LS_*",
        "--", "true",
    )  # fmt: skip
    assert code == 0 and err.count("\n") == 1 and "RANK" in err
    params = submitted()
    assert params["environment"] == {"SEED": "3", "B": "b c", "A": "1=2"}
    caller = params["caller_environment"]
    assert caller["LR"] == "3e-4" and caller["PATH"] == os.environ["PATH"]
    assert not {"SEED", "RANK", "LS_COLORS"} & caller.keys()


def test_a_variable_that_the_config_gives_is_not_told_as_left_out(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If a config sets a variable that is left out of the shell's, the line does not name it."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    (tmp_path / "c.json").write_text('{"environment": {"RANK": "3"}}')
    code, _, err = ctl("submit", "-f", str(tmp_path / "c.json"))
    assert code == 0 and "WORLD_SIZE" in err and "RANK" not in err


def test_env_clean_passes_the_allow_list(
    submitted: Submitted, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--env-clean passes only the allow-list, without secrets, and says nothing about the others."""
    for name in ("VIRTUAL_ENV", "LR", "RANK", "LC_ALL"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    code, _, err = ctl("submit", "--env-clean", "-e", "LR", "--", "true")
    params = submitted()
    assert (code, err) == (0, "") and params["environment"] == {"LR": "x"}
    caller = params["caller_environment"]
    assert caller["VIRTUAL_ENV"] == caller["LC_ALL"] == "x" and caller["PATH"]
    assert not {"LR", "RANK", "WANDB_API_KEY"} & caller.keys()


def test_variables_of_an_attach_that_differ_are_named(
    daemon: ScriptedDaemon, ctl: Ctl, submitted: Submitted
) -> None:
    """The client prints the names of the variables in which the live run differs, in one line."""
    names = [f"V{number}" for number in range(12)]
    daemon.handlers["run.submit"] = lambda params, peer: a_run(duplicate=True, differing_variables=names)
    _, _, err = ctl("submit", "--", "true")
    assert "V9" in err and "V10" not in err and "2 more" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n\n  # no\nexport B=2\nC=\n", {"A": "1", "B": "2", "C": ""}),
        ("A=a b  # why\nB=a#b\nC= x\n", {"A": "a b", "B": "a#b", "C": "x"}),
        ('A=\'a # $b\' # why\nB="a \\"b\\" \\n \\$x"\n', {"A": "a # $b", "B": 'a "b" \\n $x'}),
        ("A=$HOME\r\nexport=1\nA.B=a=b", {"A": "$HOME", "export": "1", "A.B": "a=b"}),
    ],
)
def test_env_file(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    """An --env-file has NAME=VALUE lines, comments, optional quotes and `export`; nothing is expanded."""
    (tmp_path / "env").write_bytes(text.encode())
    assert read_variables(str(tmp_path / "env")) == variables


@pytest.mark.parametrize(
    "line", [b"A", b"=1", b"A =1", b"export A", b"A='x", b'A="x" y', b"A=\xff", b"A=\0", b"export A B=1"]
)
def test_a_mistake_in_an_env_file_names_file_and_line(tmp_path: Path, line: bytes) -> None:
    """A mistake in an --env-file is refused with the file and the number of the line."""
    (tmp_path / "env").write_bytes(b"OK=1\n" + line + b"\n")
    with pytest.raises(UsageError, match=r"/env:2: "):
        read_variables(str(tmp_path / "env"))
    with pytest.raises(UsageError, match=r"/none: No such file"):
        read_variables(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WANDB_API_KEY", "0123456789", True), ("HF_TOKEN", "0123456789", True),
        ("AWS_SECRET_ACCESS_KEY", "0123456789", True), ("db_password", "0123456789", True),
        ("PGPASSWORD", "0123456789", True), ("API_KEY", "short", False),
        ("TOKENIZERS_PARALLELISM", "0123456789", False), ("RAY_AUTH_MODE", "0123456789", False),
        ("KEYBOARD", "0123456789", False), ("DATABASE_URL", "postgres://me:hush@host/db", True),
        ("HTTPS_PROXY", "http://proxy:3128", False), ("URL", "https://host/a:b@c", False),
        ("URLS", "http://a/,http://u:p@b", True),
    ],
)  # fmt: skip
def test_secrets_are_known_by_whole_words_and_urls(name: str, value: str, expected: bool) -> None:
    """A secret has a secret word between underscores in its name, or a password in a URL; 8 characters."""
    assert is_secret(name, value) is expected


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"LONG": 131_067}, "LONG has 131073 bytes"),
        ({"A": 100_000, "B": 99_000, "C": 98_000, "D": 10, **{f"X{n}": 90_000 for n in range(9)}}, "request"),
    ],
)
def test_a_submit_that_is_too_large_is_not_sent(
    submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl, tmp_path: Path, sizes: dict[str, int], words: str
) -> None:
    """A variable of more than 128 KiB, or a request of more than 1 MiB, is refused before it is sent."""
    for name, size in sizes.items():
        with (tmp_path / "env").open("a") as file:
            file.write(f"{name}={'x' * size}\n")
    code, _, err = ctl("submit", "--env-file", str(tmp_path / "env"), "--", "true")
    assert code == 2 and words in err and "--env-drop" in err and not daemon.requests("run.submit")
    if words == "request":
        assert "1048576; " in err and "A (100003), B (99003), C (98003)\n" in err and "D (" not in err
    (tmp_path / "env").write_text(f"LONG={'x' * 131_066}\n")
    assert ctl("submit", "--env-file", str(tmp_path / "env"), "--", "true")[0] == 0


def test_arguments_and_environment_have_a_quarter_of_the_stack_limit(
    submitted: Submitted, daemon: ScriptedDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client refuses what execve refuses: total, limit, the three largest names and --env-drop."""
    for name in ("A", "B", "C"):
        monkeypatch.setenv(name, "x" * 60_000)
    limits = {"stack": 600 << 10}
    monkeypatch.setattr("resource.getrlimit", lambda which: (limits["stack"], -1))
    code, _, err = ctl("submit", "--", "true")
    assert (
        code == 2 and " 153600; " in err and "A (60003), B (60003), C (60003)" in err and "--env-drop" in err
    )
    assert ctl("submit", "--env-drop", "[AB]", "--", "true")[0] == 0
    limits["stack"] = -1
    assert ctl("submit", "--", "true")[0] == 0


@pytest.mark.parametrize("pointers", [0, 5000])
def test_the_size_that_execve_accepts_is_counted_as_the_kernel_does(pointers: int) -> None:
    """`exec_bytes` and `exec_limit_bytes` find the largest environment that execve accepts, within 4 KiB."""

    def starts(size: int) -> bool:
        environment = {f"P{number}": "" for number in range(pointers)}
        rest = size - exec_bytes(ARGV, environment)
        environment |= {f"X{n}": "x" * 50_000 for n in range(rest // 50_015)}
        environment["REST"] = "x" * (size - exec_bytes(ARGV, environment) - 14)
        assert abs(exec_bytes(ARGV, environment) - size) < 16
        command = ["prlimit", f"--stack={1 << 20}:", *ARGV]
        try:
            return subprocess.run(command, env=environment, check=False).returncode == 0
        except OSError:
            return False

    limit = exec_limit_bytes(1 << 20)
    assert limit == 256 << 10
    assert starts(limit - 4096) and not starts(limit + 4096)
