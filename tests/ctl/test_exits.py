"""Exit codes and error messages of mosaicctl; scripts depend on every exit code."""

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
        # The step limit was reached: the daemon sent the signal that ended the worker.
        ({"outcome": "succeeded", "exit_code": None, "signal": 15, "cause": {"kind": "step_limit"}}, 0),
        # The worker printed run_failed and then exited with 0: run_failed decides.
        ({"outcome": "failed", "exit_code": 0, "cause": {"kind": "worker_failed"}}, 1),
        ({"outcome": "interrupted", "exit_code": None, "cause": {"kind": "rebooted"}}, 125),
    ],
)
def test_exit_code_of_a_run(end: dict[str, Any], code: int) -> None:
    """`run` and `wait` exit with the exit code of the run, 128 + signal, 124, 125, 127 or 130."""
    assert code_of_run(an_ended_run(**end)) == code


@pytest.mark.parametrize("kind", ERRORS.values(), ids=[kind.name for kind in ERRORS.values()])
def test_exit_code_of_an_error(
    kind: type[MosaicError], daemon: ScriptedDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every error of the daemon has its exit code and one line on standard error."""
    monkeypatch.setattr(
        "mosaicctl.client.RECONNECT_TIMEOUT_S", 0.1
    )  # mosaicctl retries while a daemon drains

    def refuse(params: object, peer: object) -> None:
        raise kind("the reason")

    daemon.handlers["run.list"] = refuse
    assert ctl("list") == (EXIT_CODES.get(kind.name, 125), "", "mosaicctl: the reason\n")


def test_all_faults_of_a_config_are_printed(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """All faults of a config are printed, one a line, with path and rule."""

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


def test_wait_exits_with_the_first_failing_code(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`wait` for several runs exits with the first exit code that is not 0."""
    daemon.handlers["run.wait"] = lambda params, peer: (
        an_ended_run(2, outcome="failed", exit_code=7) if params["run_id"] == "b" else an_ended_run(1)
    )
    assert ctl("wait", "a", "b")[0] == 7
    assert ctl("wait", "a")[0] == 0


def test_wait_for_a_state_exits_with_0_or_5(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`wait --state` exits with 0 if the run reaches the state, and with 5 if the run ends before."""

    def wait(params: dict[str, str], peer: object) -> object:
        if params["run_id"] == "b":
            raise Conflict("run b has ended and cannot be PAUSE")
        return a_run()

    daemon.handlers["run.wait"] = wait
    assert ctl("wait", "--state", "running", "a")[0] == 0
    assert ctl("wait", "--state", "PAUSE", "b")[0] == 5
    assert daemon.requests("run.wait")[0]["states"] == ["EXEC"]


def test_wait_timeout_exits_124(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`wait --timeout` sends the timeout to the daemon, and exits with 124 when it has passed."""
    from mosaicd.protocol.errors import TimedOut

    def refuse(params: object, peer: object) -> None:
        raise TimedOut("run a is not TERM after 120 s")

    daemon.handlers["run.wait"] = refuse
    code, _, err = ctl("wait", "--timeout", "2m", "a")
    assert code == 124
    assert err == "mosaicctl: run a is not TERM after 120 s\n"
    assert 60 < daemon.requests("run.wait")[0]["timeout_s"] <= 120


def test_stop_continues_after_an_unknown_run_and_exits_3(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If run b is unknown, `stop a b c` stops a and c and exits with 3."""

    def stop(params: dict[str, str], peer: object) -> object:
        if params["run_id"] == "b":
            raise NotFound
        return a_run(1, want="stop", name=params["run_id"])

    daemon.handlers["run.stop"] = stop
    code, out, err = ctl("stop", "a", "b", "c")
    assert code == 3
    assert [params["run_id"] for params in daemon.requests("run.stop")] == ["a", "b", "c"]
    assert err.startswith("mosaicctl: b: ") and err.count("\n") == 1
    assert out.count("stopping (EXEC)") == 2


def test_list_of_faults_does_not_repeat_the_first_fault(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If all faults are listed, the first line does not repeat the first fault."""
    faults = [{"path": "a", "rule": "is required"}, {"path": "b", "rule": "must not be empty"}]

    def refuse(params: object, peer: object) -> None:
        raise InvalidParams("a: is required (and 1 more)", errors=faults)

    daemon.handlers["run.submit"] = refuse
    code, _, err = ctl("submit", "--", "true")
    assert code == 2
    assert err.splitlines()[1:] == ["  a: is required", "  b: must not be empty"]
    assert "is required" not in err.splitlines()[0]


def test_ambiguous_prefix_lists_the_candidates() -> None:
    """For an ambiguous prefix the candidates are listed; control characters in names are replaced."""
    runs = [{"run_id": "01A", "name": "x\x1b[2J"}, {"run_id": "01B", "name": None}]
    error = Conflict("'01' is ambiguous: several runs begin with it", candidates=runs)
    assert explain(error, "01").splitlines()[1:] == ["  01A  x?[2J", "  01B"]


def test_refusal_of_an_ended_run_suggests_retry(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If a run has ended, the error suggests `retry`; other refusals do not."""

    def refuse(params: dict[str, str], peer: object) -> None:
        raise Conflict("no", state="TERM" if params["run_id"] == "a" else "INIT")

    daemon.handlers["run.resume"] = refuse
    code, _, err = ctl("resume", "a", "b")
    assert code == 5
    first, offer, second = err.splitlines()
    assert (first, second) == ("mosaicctl: a: no", "mosaicctl: b: no")
    assert "`mosaicctl retry a`" in offer


def test_error_repeats_neither_fault_nor_run() -> None:
    """The error repeats neither a single fault nor a run that its message already contains."""
    faults = [{"path": "path", "rule": "is no file"}]
    assert explain(InvalidParams("path: /x is no file", errors=faults)) == "mosaicctl: path: /x is no file\n"
    assert explain(NotFound("there is no run 'x'"), "x") == "mosaicctl: there is no run 'x'\n"
    assert explain(NotFound("there is no run"), "x") == "mosaicctl: x: there is no run\n"
