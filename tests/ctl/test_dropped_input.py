"""The warning that a run does not get the standard input of mosaicctl."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicctl.dropped_input import has_input, reads_program_from_stdin
from tests.ctl.scripted import ScriptedDaemon, a_run, an_ended_run


@pytest.mark.parametrize(
    "command",
    ["sh", "bash -s", "/bin/bash -es a b", "bash -o pipefail", "dash -", "zsh -f", "python -", "python3 -u",
     "python3.11 -", "/usr/bin/python3 -X dev -W error", "pypy3 - a"],
)  # fmt: skip
def test_an_interpreter_without_a_script_reads_its_program(command: str) -> None:
    """Shells and Python without a script, with `-s` or `-`, read their program from standard input."""
    assert reads_program_from_stdin(command.split())


@pytest.mark.parametrize(
    "command",
    ["sh a.sh", "bash -c id", "bash -ec id", "bash -o pipefail a.sh", "bash -- a.sh", "python a.py",
     "python -c 1", "python -m http.server", "python3 -u a.py", "python3 -W i a.py", "cat", "./bash.py", ""],
)  # fmt: skip
def test_other_commands_do_not(command: str) -> None:
    """A command with a script, and any other program, does not read its program from standard input."""
    assert not reads_program_from_stdin(command.split())


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_a_pipe_has_input_if_it_has_bytes(pipe: tuple[int, int]) -> None:
    """A pipe counts when it has bytes; one that may still get some counts only on request; none is read."""
    read_end, write_end = pipe
    assert (has_input(read_end), has_input(read_end, or_may_get=True)) == (False, True)
    os.write(write_end, b"x")
    os.close(write_end)
    assert has_input(read_end)
    assert os.read(read_end, 10) == b"x"
    assert not has_input(read_end, or_may_get=True)
    assert not has_input(write_end)


def test_a_file_has_input_if_bytes_are_unread(tmp_path: Path) -> None:
    """A file counts until it is read; a device, a file for writing and a closed descriptor do not."""
    path = tmp_path / "input"
    path.write_text("text")
    with path.open("rb", buffering=0) as file:
        assert has_input(file.fileno())
        file.read()
        assert not has_input(file.fileno())
    assert not has_input(1 << 20)
    with path.open("ab") as file, open("/dev/zero", "rb") as device:
        assert not has_input(file.fileno()) and not has_input(device.fileno())


def _ctl(*arguments: str, stdin: bytes | None) -> subprocess.CompletedProcess[bytes]:
    """Run mosaicctl with `stdin` in a pipe; None: an empty device."""
    return subprocess.run(
        [sys.executable, "-m", "mosaicctl", *arguments], input=stdin, capture_output=True, check=False,
        stdin=subprocess.DEVNULL if stdin is None else None,
    )  # fmt: skip


def _warnings(done: subprocess.CompletedProcess[bytes]) -> int:
    return sum(b"standard input" in line for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("command", "stdin", "count"),
    [("bash -s", b"id\n", 1), ("python3 -", b"1\n", 1), ("cat", b"x\n", 0), ("bash -s", None, 0),
     ("bash a.sh", b"id\n", 0)],
)  # fmt: skip
def test_submit_warns_about_interpreters(
    command: str, stdin: bytes | None, count: int, daemon: ScriptedDaemon
) -> None:
    """`submit` prints one line if an interpreter would read its program from the piped input; it submits."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT")
    done = _ctl("submit", "--", *command.split(), stdin=stdin)
    assert (done.returncode, _warnings(done)) == (0, count)
    assert len(daemon.requests("run.submit")) == 1


@pytest.mark.parametrize(("stdin", "count"), [(b"data\n", 1), (b"", 0), (None, 0)])
def test_run_warns_about_every_command(stdin: bytes | None, count: int, daemon: ScriptedDaemon) -> None:
    """`run` prints one line if its standard input has content, whatever the command is."""
    daemon.handlers["run.submit"] = lambda params, peer: an_ended_run()
    daemon.handlers["run.get"] = lambda params, peer: an_ended_run()
    daemon.handlers["run.watch"] = lambda params, peer: {"epoch": "e1", "cursor": 0, "runs": []}
    daemon.handlers["run.logs"] = lambda params, peer: {
        "data": "", "encoding": "utf-8", "cursor": 0, "offset": 0, "eof": True
    }  # fmt: skip
    done = _ctl("run", "--", "cat", stdin=stdin)
    assert (done.returncode, _warnings(done)) == (0, count)


def test_a_config_on_standard_input_is_no_dropped_input(daemon: ScriptedDaemon) -> None:
    """`submit -f -` has read its standard input, so nothing is dropped."""
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT")
    done = _ctl("submit", "-f", "-", stdin=b'{"run_name": "x"}')
    assert (done.returncode, _warnings(done)) == (0, 0)
