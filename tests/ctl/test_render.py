"""The output of mosaicctl in every format, on a terminal and in a pipe."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl import render
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run, an_ended_run

Ctl = Callable[..., tuple[int, str, str]]


class Terminal:
    """A stream whose isatty() is true."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def two_runs(daemon: ScriptedDaemon) -> None:
    def answer(params: dict[str, Any], peer: Peer) -> object:
        ended = [an_ended_run(1, outcome="failed", exit_code=7, cause={"kind": "exit_code", "exit_code": 7})]
        runs = {True: [a_run(2, name="\x1b[31mred")], False: ended, None: [*ended, a_run(2)]}[
            params.get("live")
        ]
        return {"runs": runs, "cursor": None}

    daemon.handlers["run.list"] = answer


@pytest.mark.usefixtures("two_runs")
def test_table_in_a_pipe_is_plain(ctl: Ctl) -> None:
    """In a pipe the table has no colour, no cut line and no control character of a run name."""
    code, out, _ = ctl("list")
    assert code == 0
    header, first, second = out.splitlines()
    assert header.split() == ["RUN", "NAME", "STATE", "OUTCOME", "PROGRESS", "TIME", "NOTE"]
    assert first.split()[:4] == [a_run(1)["run_id"], "run-1", "TERM", "failed"]
    assert first.endswith("exit code 7")
    assert "?[31mred" in second
    assert "\x1b" not in out


@pytest.mark.usefixtures("two_runs")
def test_machine_formats_have_every_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """json prints one array, jsonl one object a line, name the ids; all include every ended run."""
    ids = [a_run(1)["run_id"], a_run(2)["run_id"]]
    assert [run["run_id"] for run in json.loads(ctl("-o", "json", "list")[1])] == ids
    assert [json.loads(line)["run_id"] for line in ctl("-o", "jsonl", "list")[1].splitlines()] == ids
    assert ctl("-o", "name", "list")[1].split() == ids
    assert daemon.requests("run.list") == [{}, {}, {}]


def test_show_json_prints_one_object_or_an_array(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`-o json show` prints the run object with its leftovers; for several runs it prints an array."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(1)
    assert json.loads(ctl("-o", "json", "show", "a")[1]) == {**a_run(1), "leftovers": None}
    assert len(json.loads(ctl("-o", "json", "show", "a", "b")[1])) == 2


def test_show_prints_the_readable_facts(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`show` prints state, want, granted and requested CPUs, and the command as the user can type it."""
    run = a_run(
        1, cpus={"requested": 4, "granted": 2}, command=["sh", "-c", "echo hi there"], want="stop",
        metrics={"loss": 0.123456, "episodes": 3.0}, labels={"team": "a"}, time_limit_s=5400,
    )  # fmt: skip
    daemon.handlers["run.get"] = lambda params, peer: run
    out = ctl("show", "a")[1]
    facts = dict(line.strip().split("  ", 1) for line in out.splitlines()[1:] if "  " in line.strip())
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    assert facts["state"] == "EXEC (stopping)"
    assert facts["cpus"] == "2 of the 4 asked for (MOSAIC_CPUS=2)"
    assert facts["command"] == "sh -c 'echo hi there'"
    assert facts["loss"] == "0.1235"
    assert facts["time limit"] == "1h30m"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, None),
        ({"stall_s": None, "heartbeat_timeout_s": None}, None),
        ({"heartbeat_timeout_s": 90.0}, "heartbeat 1m30s"),
        (
            {"stall_s": 600.0, "start_timeout_s": 60.0, "handshake_timeout_s": 30.0},
            "handshake 30s, start 1m00s, stall 10m00s",
        ),
    ],
)
def test_show_prints_the_liveness_limits(
    limits: dict[str, Any], words: str | None, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """`show` prints the liveness limits in one line, in the order of a run; without limits no line."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(1, **limits)
    lines = [line for line in ctl("show", "a")[1].splitlines() if "liveness limits" in line]
    limits_shown = [line.split("  ")[-1].strip() for line in lines]
    assert limits_shown == ([] if words is None else [words])


def test_colour_needs_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colour, unless NO_COLOR is set or TERM is dumb."""
    terminal: Any = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert render.has_colour(terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not render.has_colour(terminal)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not render.has_colour(terminal)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "INIT", "held": True}, "held"),
        ({"state": "INIT", "reason": "needs 2 CPUs, 1 of 2 free"}, "needs 2 CPUs, 1 of 2 free"),
        ({"want": "stop"}, "stopping"),
        ({"want": "pause"}, "pausing"),
        ({"state": "PAUSE", "want": "pause"}, ""),
        ({"state": "PAUSE", "want": "run"}, "resuming"),
        ({"state": "PAUSE", "want": "pause", "released": True}, "without slots"),
        ({"state": "TERM", "cause": {"kind": "signal", "signal": 11}}, "signal 11"),
        ({"state": "TERM", "cause": {"kind": "by_user", "who": "ada", "signal": 15}}, "stopped by ada"),
        ({"state": "TERM", "cause": {"kind": "by_user", "who": "worker"}}, "stopped by its worker"),
        (
            {"state": "TERM", "cause": {"kind": "time_limit", "forced": True, "signal": 9}},
            "time limit reached; killed after the grace period",
        ),
        (
            {"state": "FAULT", "cause": {"kind": "spawn_failed", "error": "no such file"}},
            "spawn failed: no such file",
        ),
        (
            {"state": "TERM", "cause": {"kind": "stuck", "after_s": 600, "signal": 15, "steps": 5}},
            "stuck: no step for 10m00s",
        ),
        (
            {
                "state": "TERM",
                "cause": {"kind": "heartbeat_lost", "after_s": 0.5, "forced": True, "signal": 9},
            },
            "heartbeat lost: no output for 0.5s; killed",
        ),
        (
            {"state": "TERM", "cause": {"kind": "oom", "limit_bytes": 512 << 20, "victims": 1}},
            "oom: limit 512.0 MiB, victims 1",
        ),
        ({"state": "TERM", "cause": {"kind": "shim_lost"}}, "shim lost"),
    ],
)
def test_note_has_the_request_reason_or_cause(changes: dict[str, Any], words: str) -> None:
    """The note has the most important fact beside the state: request, reason or cause."""
    assert render.note(a_run(**changes)) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (10834.6, "10835"),
        (3.0, "3"),
        (0.123456, "0.1235"),
        (1e20, "1e+20"),
        ("NaN", "NaN"),
        (True, "True"),
    ],
)
def test_numbers_are_shortened(value: object, text: str) -> None:
    """Numbers are shortened; other values are printed unchanged."""
    assert render.number(value) == text


def test_closed_pipe_exits_141_without_a_message(daemon: ScriptedDaemon) -> None:
    """If the reader of a pipe exits, mosaicctl prints nothing and exits with 141, as after SIGPIPE."""
    import subprocess
    import sys

    daemon.handlers["run.list"] = lambda params, peer: {
        "runs": [a_run(n) for n in range(3000)],
        "cursor": None,
    }
    program = "import os, sys; sys.stdin.close(); os.close(0)"
    reader = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    reader.wait()
    writer = subprocess.run(
        [sys.executable, "-m", "mosaicctl", "list", "-a"],
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert reader.stdin is not None
    reader.stdin.close()
    assert (writer.returncode, writer.stderr) == (141, b"")
