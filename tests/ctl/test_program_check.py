"""Mistakes in the program, the directory and the worker's values are told before the submit is sent."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mosaicctl.exits import NOT_EXECUTABLE, NOT_STARTED
from mosaicctl.program_check import FAULTS, Fault, Subject, look, refusal
from mosaicctl.timed_look import timed_look
from mosaicd.protocol.errors import InvalidParams
from tests.ctl.scripted import ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


def write(path: Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with programs, which every user can enter."""
    place = Path(tempfile.mkdtemp(prefix="mosaic-look-"))
    place.chmod(0o755)
    write(place / "good.sh", "#!/bin/sh\n")
    write(place / "flags.sh", "#! /bin/sh -e\n")
    write(place / "env.sh", "#!/usr/bin/env sh\n")
    write(place / "env_s.sh", "#!/usr/bin/env -S A=1 sh -e\n")
    write(place / "nested.sh", f"#!{place}/good.sh\n")
    write(place / "relative.sh", "#!bin/tool\n")
    write(place / "plain.txt", "echo\n", 0o644)
    write(place / "no_shebang.sh", "echo\n")
    write(place / "empty", "")
    write(place / "bare.sh", "#!\n")
    write(place / "crlf.sh", "#!/bin/sh\r\necho\r\n")
    write(place / "env_crlf.sh", "#!/usr/bin/env sh\r\n")
    write(place / "gone.sh", "#!/no/such/python\n")
    write(place / "env_gone.sh", "#!/usr/bin/env nosuchprogram\n")
    write(place / "env_words.sh", "#!/usr/bin/env sh -e\n")
    write(place / "bad.sh", f"#!{place}/plain.txt\n")
    write(place / "bin/tool", "#!/bin/sh\n")
    write(place / "closed/tool", "#!/bin/sh\n")
    (place / "link").symlink_to("good.sh")
    (place / "dead").symlink_to("nowhere")
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "fifo")
    shutil.copy("/bin/true", place / "binary")
    yield place
    shutil.rmtree(place)


#: Program | PATH (PLACE: the fixture's directory) | kind of the fault; "" for none.
ROWS = """
/bin/true | /nowhere |
true | /nowhere:/bin |
true | /nowhere | not_in_path
true | PLACE/good.sh:/bin |
./good.sh | /bin |
good.sh | /bin | not_in_path
good.sh | |
good.sh | /bin: |
good.sh | :/bin |
good.sh | . |
tool | bin |
tool | PLACE/bin |
bin/tool | /bin |
PLACE/flags.sh | /bin |
PLACE/env.sh | /bin:/usr/bin |
PLACE/env.sh | /nowhere | no_interpreter
PLACE/env_s.sh | /bin:/usr/bin |
PLACE/nested.sh | /bin |
./relative.sh | /bin |
PLACE/link | /bin |
PLACE/binary | /bin |
PLACE/plain.txt | /bin | not_executable
plain.txt | PLACE:/bin | not_executable
PLACE/no_shebang.sh | /bin | no_shebang
no_shebang.sh | PLACE | no_shebang
PLACE/empty | /bin | no_shebang
PLACE/bare.sh | /bin | no_shebang
PLACE/crlf.sh | /bin | carriage_return
PLACE/env_crlf.sh | /bin | carriage_return
PLACE/gone.sh | /bin | no_interpreter
PLACE/env_gone.sh | /bin | no_interpreter
PLACE/env_words.sh | /bin | no_interpreter
PLACE/bad.sh | /bin | bad_interpreter
PLACE/dead | /bin | dead_link
PLACE/loop | /bin | unusable
PLACE/bin | /bin | directory
PLACE/fifo | /bin | no_regular_file
bin | PLACE | not_in_path
PLACE/none | /bin | no_file
PLACE/good.sh/x | /bin | no_file
"""


@pytest.mark.parametrize("row", ROWS.strip().splitlines())
def test_look_finds_what_the_kernel_refuses(row: str, place: Path) -> None:
    """A look refuses a program exactly if its start would fail, with the kind of the fault."""
    program, path, kind = (part.strip().replace("PLACE", str(place)) for part in row.split("|"))
    fault = look(Subject([program], str(place), path))
    assert (fault[0] if fault else "") == kind
    try:
        started = subprocess.run(
            [program],
            cwd=place,
            env={"PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        ).returncode
    except OSError:
        started = -1
    assert (started == 0) is (kind == "")  # env(1) starts, and then does not find its program


@pytest.mark.parametrize(
    ("program", "cwd", "kind"),
    [
        ("closed/tool", ".", "unusable"),
        ("good.sh", "closed", "bad_directory"),
        ("tool", ".", "not_in_path"),
    ],
)
def test_look_is_that_of_the_user(program: str, cwd: str, kind: str, place: Path) -> None:
    """A directory without the permission x hides its programs from the user."""
    (place / "closed").chmod(0o600)

    def as_another_user() -> Fault | None:
        if os.getuid() == 0:  # root may enter every directory
            os.setuid(65534)
        return look(Subject([program], str(place / cwd), f"{place}/closed"))

    assert timed_look(as_another_user)[0] == kind
    (place / "closed").chmod(0o755)


@pytest.mark.parametrize(
    ("cwd", "kind"), [("none", "no_directory"), ("good.sh", "bad_directory"), ("good.sh/x", "bad_directory")]
)
def test_look_finds_a_missing_working_directory(cwd: str, kind: str, place: Path) -> None:
    """A working directory that is missing or is no directory is a fault, whatever the program is."""
    fault = look(Subject(["/bin/true"], str(place / cwd), "/bin"))
    assert fault is not None and fault[0] == kind


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["FOO=1", "B=a b", "cmd", "x y"], "-e FOO=1 -e 'B=a b' -- cmd 'x y'"),
        (["FOO=1"], "-e FOO=1 -- COMMAND"),
        (["FOO=1 cmd"], "-- sh -c 'FOO=1 cmd'"),
        (["python train.py"], "-- sh -c 'python train.py'"),
        (["make && ls"], "-- sh -c 'make && ls'"),
        (["cd", "/tmp"], "-- sh -c 'cd /tmp'"),
        (["source", "env/bin/activate"], "-- bash -c 'source env/bin/activate'"),
        (["good.sh", "a"], "-- ./good.sh a"),
        (["plain.txt"], "-- ./plain.txt"),
        (["~/x"], "~"),
        (["./no_shebang.sh"], "-- sh ./no_shebang.sh"),
        (["./plain.txt"], "chmod +x ./plain.txt"),
        (["./crlf.sh"], "sed -i"),
        (["./bin"], "program in it"),
    ],
)
def test_refusal_says_what_to_type(argv: list[str], hint: str, place: Path) -> None:
    """A refused program comes with what the user means to type."""
    subject = Subject(argv, str(place), "/bin:/usr/bin")
    fault = look(subject)
    assert fault is not None
    assert hint in refusal(subject, fault)[1]


def test_relative_program_begins_at_cwd(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--cwd DIR -- ./prog` means DIR/prog; if only the caller's directory has it, the hint has its path."""
    monkeypatch.chdir(place)
    subject = Subject(["./good.sh"], str(place / "bin"), "/bin")
    fault = look(subject)
    assert fault is not None and fault[0] == "no_file"
    assert str(place / "good.sh") in refusal(subject, fault)[1]


def test_every_fault_has_a_code_of_a_shell() -> None:
    """A program that is not found is 127 for `run`, one that cannot be executed is 126."""
    assert {row.code for row in FAULTS.values()} == {NOT_STARTED, NOT_EXECUTABLE}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--", "nosuch"], 127), (["--", "PLACE/none"], 127), (["--", "PLACE/plain.txt"], 126),
        (["--", "PLACE/bin"], 126), (["--cwd", "PLACE/none", "--", "true"], 127),
        (["--cwd", "PLACE/good.sh", "--", "true"], 126), (["-e", "PATH=/nowhere", "--", "true"], 127),
        (["-f", "PLACE/entry.json"], 127), (["-f", "PLACE/script.json"], 127),
    ],
)  # fmt: skip
def test_refused_program_is_not_sent(
    options: list[str], code: int, place: Path, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """submit exits with 2 and run with 127 or 126, and nothing is sent; also with --dry-run."""
    (place / "entry.json").write_text(json.dumps({"entry_point": "/no/such", "arguments": []}))
    (place / "script.json").write_text(json.dumps({"metadata": {"worker": {"script": "/no/such.py"}}}))
    words = [word.replace("PLACE", str(place)) for word in options]
    for verb, expected in ((["submit"], 2), (["submit", "--dry-run"], 2), (["run"], code)):
        found, out, err = ctl(*verb, *words)
        assert (found, out) == (expected, ""), err
    assert not daemon.requests("run.submit")
    daemon.handlers["run.submit"] = lambda params, peer: a_run()
    assert ctl("submit", "--no-check", *words)[0] == 0


def test_path_of_the_run_counts(place: Path, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """-e PATH= of the run finds a program that the PATH of the caller lacks."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run()
    assert ctl("submit", "--", "tool")[0] == 2
    assert ctl("submit", "-e", f"PATH={place}/bin", "--", "tool")[0] == 0


def test_look_without_a_result_only_warns(
    daemon: ScriptedDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the look takes too long, submit prints one line of warning and sends the submit."""
    monkeypatch.setattr("mosaicctl.timed_look.LOOK_TIMEOUT_S", 0.05)
    monkeypatch.setattr("mosaicctl.submit_check.look", lambda subject: signal.pause())
    daemon.handlers["run.submit"] = lambda params, peer: a_run()
    code, _, err = ctl("submit", "--", "nosuch")
    assert (code, len(err.splitlines())) == (0, 1)
    assert len(daemon.requests("run.submit")) == 1


SCHEMA: dict[str, Any] = {
    "type": "object", "additionalProperties": False, "required": ["run_id", "env_id"],
    "properties": {
        "run_id": {"type": "string"}, "env_id": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "episodes": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
        "algo": {"enum": ["sarsa", "q"]}, "gamma": {"type": "number", "exclusiveMinimum": 0},
        "net": {"$ref": "#/$defs/net"}, "lr": {"anyOf": [{"type": "number", "maximum": 1}, {"type": "null"}]},
    },
    "$defs": {
        "net": {"type": "object", "properties": {"layers": {"type": "array", "items": {"minimum": 1}}}}
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "paths"),
    [
        (["env_id=Taxi", "episodes=5", "algo=q", "gamma=0.5", "net.layers=[1]", "lr=null"], []),
        (["env_id=Taxi", "episodes=null", "episodes=5.0", "lr=1"], []),
        (["env_id=Taxi", "episode=100"], ["episode"]),
        (["env_id=Taxi", "episodes=0"], ["episodes"]),
        (["env_id=Taxi", "episodes=many"], ["episodes"]),
        (["env_id=taxi", "algo=x", "gamma=0"], ["env_id", "algo", "gamma"]),
        (["episodes=1"], ["env_id"]),
        (["env_id=Taxi", "net.layers=[2,0]", "lr=2"], ["net.layers[1]", "lr"]),
        (["env_id=Taxi", "net=1", "episodes=true"], ["net", "episodes"]),
    ],
)
def test_values_that_the_schema_refuses_are_not_sent(
    values: list[str], paths: list[str], daemon: ScriptedDaemon, ctl: Ctl, tmp_path: Path
) -> None:
    """`--worker tabular --set episode=100` exits with 2 and every fault; a config with -f too."""
    worker = {"kind": "tabular", "module": "m", "python": sys.executable, "config_schema": SCHEMA}
    daemon.handlers["worker.list"] = lambda params, peer: {"workers": [worker]}
    daemon.handlers["run.submit"] = lambda params, peer: a_run()
    options = [word for value in values for word in ("--set", value)]
    (tmp_path / "a.json").write_text('{"metadata": {"worker": {"kind": "tabular"}}}')
    for source in (["--worker", "tabular"], ["-f", str(tmp_path / "a.json")]):
        code, _, err = ctl("submit", *source, *options)
        assert code == (2 if paths else 0), err
        assert all(f"metadata.worker.config.{path}: " in err for path in paths), err
        assert ctl("submit", "--no-check", *source, *options)[0] == 0


def test_a_schema_without_sense_refuses_nothing() -> None:
    """Keywords that make no sense, and references in a circle, are no fault of a config."""
    from mosaicctl.workerschema import check_config

    check_config(
        {"$ref": "#", "type": 5, "enum": 1, "properties": [], "required": "a", "anyOf": {}}, {"a": 1}
    )
    check_config({"properties": {"a": {"pattern": "(", "minimum": "x", "$ref": "http://x/y"}}}, {"a": "b"})
    with pytest.raises(InvalidParams):
        check_config({"properties": {"a": False}}, {"a": 1})
