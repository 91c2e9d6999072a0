"""Errors that mosaicctl does not foresee, and standard streams that are closed or broken."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.ctl.scripted import Peer, ScriptedDaemon, a_run
from tests.ctl.test_run import ScriptedRun

Ctl = Callable[..., tuple[int, str, str]]
RUN_ID = a_run()["run_id"]
#: Shell redirection -> the exit code of an accepted submit, and whether the user can still be told.
#: $GONE is a pipe whose reader has exited.
REDIRECTIONS = {
    "<&-": (0, True), ">&-": (0, True), "2>&-": (0, True), ">&- 2>&-": (0, False),
    "<&- >&- 2>&-": (0, False), ">&$GONE": (141, True), "2>&$GONE": (0, True),
    ">&$GONE 2>&1": (141, False), ">/dev/full": (125, True),
}  # fmt: skip


def through_shell(arguments: str, redirection: str) -> "subprocess.CompletedProcess[str]":
    """Run mosaicctl as a process of a shell with redirected streams."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            ["bash", "-c", f'exec "$0" -m mosaicctl {arguments} {redirection}', sys.executable],
            env={**os.environ, "GONE": str(write)}, pass_fds=(write,),
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    finally:
        os.close(write)


def accepting(daemon: ScriptedDaemon) -> None:
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT")


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_closed_stream_is_no_crash_and_an_accepted_run_is_told(
    redirection: str, daemon: ScriptedDaemon
) -> None:
    """With a closed or broken stream, submit does not crash, and the open one of stdout and stderr names the
    run."""
    accepting(daemon)
    done = through_shell("submit -- true", redirection)
    code, is_told = REDIRECTIONS[redirection]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert ("run-1" in done.stdout + done.stderr) is is_told
    assert len(daemon.requests("run.submit")) == 1


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>&$GONE"])
def test_run_with_a_closed_stream_follows_to_the_end(redirection: str, daemon: ScriptedDaemon) -> None:
    """With a closed stdout, or a closed or broken stderr, `run` exits with the code of the run."""
    ScriptedRun(daemon, {"outcome": "failed", "exit_code": 7, "cause": {"kind": "exit_code", "exit_code": 7}})
    done = through_shell("run -- true", redirection)
    assert done.returncode == 7, done.stderr
    assert ("first" in done.stdout) is (redirection != ">&-")


def test_run_whose_reader_has_gone_names_the_run(daemon: ScriptedDaemon) -> None:
    """If the reader of stdout has gone, `run` exits with 141 and says that the run continues."""
    ScriptedRun(daemon, {})
    done = through_shell("run -q -- true", ">&$GONE")
    assert done.returncode == 141
    assert "run-1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("line", ["--help", "list", "submit --help", "lits"])
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_no_verb_crashes_on_a_closed_stream(line: str, redirection: str, daemon: ScriptedDaemon) -> None:
    """Help, errors and replies with a closed or broken stream leave no traceback and have a known code."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run()], "cursor": None}
    done = through_shell(line, redirection)
    assert done.returncode in (0, 2, 125, 141)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_unforeseen_exception_is_one_line_and_125(
    daemon: ScriptedDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that mosaicctl does not foresee is one line and exit code 125, for every verb."""
    daemon.handlers["run.list"] = lambda params, peer: ["not", "an", "object"]
    code, out, err = ctl("list")
    assert (code, out) == (125, "")
    assert err.startswith("mosaicctl: ") and len(err.splitlines()) == 1
    monkeypatch.setenv("MOSAICCTL_DEBUG", "1")
    code, _, err = ctl("list")
    assert code == 125 and "Traceback" in err


def test_unforeseen_exception_after_the_submit_names_the_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If `run` cannot follow its run, it exits with 125, not with a code of the run, and names the run."""

    def broken(params: dict[str, Any], peer: Peer) -> Any:
        return ["no", "watch"]

    accepting(daemon)
    daemon.handlers["run.watch"] = broken
    code, _, err = ctl("run", "-q", "--", "true")
    assert code == 125
    assert "run-1" in err and RUN_ID[:8] in err
