"""Exit codes: scripts branch on them, so each is pinned."""

from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl.exits import code_of_run, explain
from mosaicd.protocol.errors import ERRORS, EXIT_CODES, Conflict, InvalidParams, MosaicError, NotFound
from tests.ctl.scripted import ScriptedDaemon, a_run, an_ended_run

Ctl = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({}, 0),
        ({"outcome": "failed", "exit_code": 7, "cause": {"kind": "exit_code", "exit_code": 7}}, 7),
        ({"outcome": "failed", "exit_code": 200, "cause": {"kind": "exit_code"}}, 200),
        ({"outcome": "failed", "exit_code": None, "signal": 11, "cause": {"kind": "signal"}}, 139),
        ({"outcome": "timeout", "exit_code": None, "signal": 15, "cause": {"kind": "time_limit"}}, 124),
        ({"outcome": "cancelled", "exit_code": 0, "cause": {"kind": "by_user"}}, 130),
        ({"outcome": "failed", "exit_code": None, "cause": {"kind": "spawn_failed"}}, 127),
        # The budget is done: the signal that ended the process is ours.
        ({"outcome": "succeeded", "exit_code": None, "signal": 15, "cause": {"kind": "step_limit"}}, 0),
        # The worker said run_failed and then exited 0: its word counts.
        ({"outcome": "failed", "exit_code": 0, "cause": {"kind": "worker_failed"}}, 1),
        ({"outcome": "interrupted", "exit_code": None, "cause": {"kind": "rebooted"}}, 125),
    ],
)
def test_code_of_a_run(end: dict[str, Any], code: int) -> None:
    """`run` and `wait` exit with the run's own code, 128 + signal, 124, 127, 130."""
    assert code_of_run(an_ended_run(**end)) == code


@pytest.mark.parametrize("kind", ERRORS.values(), ids=[kind.name for kind in ERRORS.values()])
def test_code_of_an_error(
    kind: type[MosaicError], daemon: ScriptedDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every error of the daemon has its exit code, and is told in one line on standard error."""
    monkeypatch.setattr("mosaicctl.client.PATIENCE_S", 0.1)  # one that drains is asked again for a while

    def refuse(params: object, peer: object) -> None:
        raise kind("the reason")

    daemon.handlers["run.list"] = refuse
    assert ctl("list") == (EXIT_CODES.get(kind.name, 125), "", "mosaicctl: the reason\n")


def test_every_fault_is_told(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A config with several faults gets them all, a line each, with path and rule."""

    def refuse(params: object, peer: object) -> None:
        faults = [{"path": "resources.cpus", "rule": "must be at least 1"}, {"path": "", "rule": "is empty"}]
        raise InvalidParams("the config is not valid", errors=faults)

    daemon.handlers["run.submit"] = refuse
    code, out, err = ctl("submit", "--", "true")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "mosaicctl: the config is not valid",
        "  resources.cpus: must be at least 1",
        "  (top level): is empty",
    ]


def test_wait_exits_with_the_runs_code(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`wait` takes the code of the first run that is not 0."""
    daemon.handlers["run.wait"] = lambda params, peer: (
        an_ended_run(2, outcome="failed", exit_code=7) if params["run_id"] == "b" else an_ended_run(1)
    )
    assert ctl("wait", "a", "b")[0] == 7
    assert ctl("wait", "a")[0] == 0


def test_wait_for_a_state(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """--state: 0 when it was reached, 5 when the run ended first, which is waited for, too."""

    def wait(params: dict[str, str], peer: object) -> object:
        if params["run_id"] == "b":
            raise Conflict("run b has ended and cannot be PAUSE")
        return a_run()

    daemon.handlers["run.wait"] = wait
    assert ctl("wait", "--state", "running", "a")[0] == 0
    assert ctl("wait", "--state", "PAUSE", "b")[0] == 5
    assert daemon.asked("run.wait")[0]["states"] == ["EXEC"]


def test_wait_gives_up(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """--timeout is sent along, and its passing is 124."""
    from mosaicd.protocol.errors import TimedOut

    def refuse(params: object, peer: object) -> None:
        raise TimedOut("run a is not TERM after 120 s")

    daemon.handlers["run.wait"] = refuse
    code, _, err = ctl("wait", "--timeout", "2m", "a")
    assert code == 124
    assert err == "mosaicctl: run a is not TERM after 120 s\n"
    assert 60 < daemon.asked("run.wait")[0]["timeout_s"] <= 120


def test_the_first_refusal_is_the_code_and_the_others_are_still_stopped(
    daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """`stop a b c` with b gone stops a and c and exits 3."""

    def stop(params: dict[str, str], peer: object) -> object:
        if params["run_id"] == "b":
            raise NotFound
        return a_run(1, want="stop", name=params["run_id"])

    daemon.handlers["run.stop"] = stop
    code, out, err = ctl("stop", "a", "b", "c")
    assert code == 3
    assert [params["run_id"] for params in daemon.asked("run.stop")] == ["a", "b", "c"]
    assert err.startswith("mosaicctl: b: ") and err.count("\n") == 1
    assert out.count("stopping (EXEC)") == 2


def test_a_list_of_faults_does_not_repeat_its_first_line(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """The daemon's message is its first fault and a count; with a list of them all, that is said once."""
    faults = [{"path": "a", "rule": "is required"}, {"path": "b", "rule": "must not be empty"}]

    def refuse(params: object, peer: object) -> None:
        raise InvalidParams("a: is required (and 1 more)", errors=faults)

    daemon.handlers["run.submit"] = refuse
    code, _, err = ctl("submit", "--", "true")
    assert code == 2
    assert err.splitlines()[1:] == ["  a: is required", "  b: must not be empty"]
    assert "is required" not in err.splitlines()[0]


def test_an_ambiguous_beginning_is_told_with_what_it_could_mean() -> None:
    """The candidates are listed, with names that cannot move the cursor."""
    runs = [{"run_id": "01A", "name": "x\x1b[2J"}, {"run_id": "01B", "name": None}]
    error = Conflict("'01' is ambiguous: several runs begin with it", candidates=runs)
    assert explain(error, "01").splitlines()[1:] == ["  01A  x?[2J", "  01B"]


def test_who_asks_an_ended_run_is_told_of_retry(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """An ended run can only be handed in once more; a refusal for another reason says no such thing."""

    def refuse(params: dict[str, str], peer: object) -> None:
        raise Conflict("no", state="TERM" if params["run_id"] == "a" else "INIT")

    daemon.handlers["run.resume"] = refuse
    code, _, err = ctl("resume", "a", "b")
    assert code == 5
    first, offer, second = err.splitlines()
    assert (first, second) == ("mosaicctl: a: no", "mosaicctl: b: no")
    assert "`mosaicctl retry a`" in offer


def test_nothing_is_said_twice() -> None:
    """Neither a single fault that the message is about, nor a run that it names."""
    faults = [{"path": "path", "rule": "is no file"}]
    assert explain(InvalidParams("path: /x is no file", errors=faults)) == "mosaicctl: path: /x is no file\n"
    assert explain(NotFound("there is no run 'x'"), "x") == "mosaicctl: there is no run 'x'\n"
    assert explain(NotFound("there is no run"), "x") == "mosaicctl: x: there is no run\n"
