"""`run` behaves like the program itself: output, exit code, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.ctl.scripted import DEADLINE_S, Peer, ScriptedDaemon, a_chunk, a_run, an_ended_run, an_event

Ctl = Callable[..., tuple[int, str, str]]
RUN_ID = a_run()["run_id"]


class ScriptedRun:
    """A run on a scripted daemon with two attempts; it ends with `end`, or at run.stop if it `stays`."""

    def __init__(self, daemon: ScriptedDaemon, end: dict[str, Any], stays: bool = False) -> None:
        self.end, self.stays = end, stays
        self.is_stopped = threading.Event()
        self.output = {
            (1, "stdout"): b"first\n",
            (2, "stdout"): b"second \xff\n",
            (1, "stderr"): b"",
            (2, "stderr"): b"no\n",
        }
        self._ids = 0
        daemon.handlers.update(
            {
                "run.submit": lambda params, peer: a_run(state="INIT", rev=1, attempt=0),
                "run.get": lambda params, peer: an_ended_run(attempt=2, **self.end),
                "run.watch": self.watch,
                "run.logs": self.logs,
                "run.stop": self.stop,
            }
        )

    def watch(self, params: dict[str, Any], peer: Peer) -> object:
        assert (params["since"], params["run_id"]) == (0, RUN_ID)
        self._ids += 1
        self.watcher, self.watch_id = peer, self._ids
        self._send(an_event(1, "submitted", "INIT", attempt=0), peer)
        self._send(an_event(2, "dispatched", "HSHK", attempt=1), peer)
        self._send(an_event(3, "requeued", "INIT", attempt=1), peer)
        self._send(an_event(4, "dispatched", "HSHK", attempt=2), peer)
        if not self.stays:
            self._send(self._last(), peer)
        return {"epoch": "e", "cursor": 5, "runs": [], "subscription": self._ids}

    def logs(self, params: dict[str, Any], peer: Peer) -> object:
        data = self.output[params["attempt"], params["stream"]][params["cursor"] :]
        reply = a_chunk(data, params["cursor"] + len(data), eof=True, attempt=params["attempt"])
        if params.get("follow"):
            self._ids += 1
            reply["subscription"] = self._ids
        return reply

    def stop(self, params: dict[str, Any], peer: Peer) -> object:
        self.is_stopped.set()
        self._send(self._last(), peer)
        return a_run(want="stop")

    def _send(self, event: dict[str, Any], peer: Peer) -> None:
        peer.notify("run.event", {**event, "subscription": self.watch_id})

    def _last(self) -> dict[str, Any]:
        return an_event(5, "finished", "TERM", attempt=2, outcome=self.end.get("outcome", "succeeded"))


def test_run_prints_output_on_stdout_and_states_on_stderr(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Standard output has exactly the output of all attempts; the states go to standard error."""
    ScriptedRun(daemon, {})
    code, out, err = ctl("run", "--", "true")
    assert code == 0
    assert out.encode(errors="surrogateescape") == b"first\nsecond \xff\n"
    assert "no\n" in err
    states = [line.split()[2] for line in err.splitlines() if "  run-1  " in line]
    assert states == ["INIT", "HSHK", "INIT", "HSHK", "TERM"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"outcome": "failed", "exit_code": 7, "cause": {"kind": "exit_code", "exit_code": 7}}, 7),
        (
            {"outcome": "failed", "exit_code": None, "signal": 11, "cause": {"kind": "signal", "signal": 11}},
            139,
        ),
        ({"outcome": "timeout", "exit_code": None, "signal": 15}, 124),
    ],
)
def test_run_exits_with_the_code_of_the_run(
    end: dict[str, Any], code: int, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """`run` exits with the exit code of the run, 128 + signal, or 124."""
    ScriptedRun(daemon, end)
    assert ctl("run", "-q", "--", "true")[0] == code


def test_run_quiet_prints_only_the_output(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`run -q` prints only the output of the run."""
    ScriptedRun(daemon, {})
    assert ctl("run", "-q", "--", "true")[2] == "no\n"


def test_run_of_a_program_that_cannot_start_exits_127(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If the program cannot start, `run` exits with 127 and prints the reason, also with -q."""
    cause = {"kind": "spawn_failed", "error": "no such file: x"}
    ScriptedRun(daemon, {"outcome": "failed", "exit_code": None, "cause": cause})
    code, _, err = ctl("run", "-q", "--", "true")
    assert code == 127
    assert "no such file: x" in err


def test_run_with_output_name_prints_the_id(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`run -o name` prints the id of the ended run instead of its output."""
    ScriptedRun(daemon, {})
    assert ctl("run", "-o", "name", "--", "true")[1] == RUN_ID + "\n"


def start(*argv: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mosaicctl", "run", *argv, "--", "true"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip


def test_first_ctrl_c_stops_the_run_and_waits(daemon: ScriptedDaemon) -> None:
    """The first Ctrl-C stops the run; mosaicctl waits for its end and exits with 130."""
    run = ScriptedRun(daemon, {"outcome": "cancelled", "exit_code": None, "signal": 15}, stays=True)
    process = start()
    daemon.wait_for(lambda: len(daemon.requests("run.logs")) >= 4)
    # The stop and the watch use one connection, so the event reaches the watcher.
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert run.is_stopped.is_set()
    assert "second Ctrl-C" in err
    assert out.startswith("first\n")


@pytest.mark.parametrize(
    ("kind", "argv", "signal_name"),
    [("command", (), "INT"), ("command", ("--signal", "USR1"), None), ("worker", (), None)],
)
def test_ctrl_c_sends_int_to_a_command(
    daemon: ScriptedDaemon, kind: str, argv: tuple[str, ...], signal_name: str | None
) -> None:
    """Ctrl-C asks for the signal INT, unless the run is a worker or has a signal of its own."""
    ScriptedRun(daemon, {"outcome": "cancelled", "exit_code": None, "signal": 15}, stays=True)
    daemon.handlers["run.submit"] = lambda params, peer: a_run(state="INIT", rev=1, attempt=0, kind=kind)
    process = start(*argv)
    daemon.wait_for(lambda: len(daemon.requests("run.watch")) >= 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    [stop] = daemon.requests("run.stop")
    assert stop.get("signal") == signal_name


def test_second_ctrl_c_ends_mosaicctl(daemon: ScriptedDaemon) -> None:
    """The second Ctrl-C ends mosaicctl immediately; the daemon still stops the run."""
    run = ScriptedRun(daemon, {}, stays=True)

    def accept_stop(params: dict[str, Any], peer: Peer) -> object:
        run.is_stopped.set()
        return a_run(want="stop")

    daemon.handlers["run.stop"] = accept_stop
    process = start()
    daemon.wait_for(lambda: len(daemon.requests("run.logs")) >= 4)
    process.send_signal(signal.SIGINT)
    assert run.is_stopped.wait(DEADLINE_S)
    process.send_signal(signal.SIGINT)
    assert "run-1" in process.communicate(timeout=DEADLINE_S)[1].splitlines()[-1]
    assert process.returncode == 130


def test_ctrl_c_can_detach(daemon: ScriptedDaemon) -> None:
    """With --detach-on-interrupt, Ctrl-C ends mosaicctl and does not stop the run."""
    ScriptedRun(daemon, {}, stays=True)
    process = start("--detach-on-interrupt")
    daemon.wait_for(lambda: len(daemon.requests("run.logs")) >= 4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert not daemon.requests("run.stop")
