"""`run`: as if the program had been started right here."""

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


class Life:
    """A run on a scripted daemon: two attempts' output, ended by `end` or by run.stop."""

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
        self._tell(an_event(1, "submitted", "INIT", attempt=0), peer)
        self._tell(an_event(2, "dispatched", "HSHK", attempt=1), peer)
        self._tell(an_event(3, "requeued", "INIT", attempt=1), peer)
        self._tell(an_event(4, "dispatched", "HSHK", attempt=2), peer)
        if not self.stays:
            self._tell(self._last(), peer)
        return {"epoch": "e", "cursor": 5, "runs": [], "subscription": self._ids}

    def logs(self, params: dict[str, Any], peer: Peer) -> object:
        data = self.output[params["attempt"], params["stream"]][params["cursor"] :]
        reply = a_chunk(data, params["cursor"] + len(data), eof=True)
        if params.get("follow"):
            self._ids += 1
            reply["subscription"] = self._ids
        return reply

    def stop(self, params: dict[str, Any], peer: Peer) -> object:
        self.is_stopped.set()
        self._tell(self._last(), peer)
        return a_run(want="stop")

    def _tell(self, event: dict[str, Any], peer: Peer) -> None:
        peer.notify("run.event", {**event, "subscription": self.watch_id})

    def _last(self) -> dict[str, Any]:
        return an_event(5, "finished", "TERM", attempt=2, outcome=self.end.get("outcome", "succeeded"))


def test_output_is_the_runs_and_states_go_to_stderr(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Standard output holds what the run wrote, in all its attempts, and nothing else."""
    Life(daemon, {})
    code, out, err = ctl("run", "--", "x")
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
def test_it_exits_with_the_runs_code(
    end: dict[str, Any], code: int, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """The exit code is the run's own."""
    Life(daemon, end)
    assert ctl("run", "-q", "--", "x")[0] == code


def test_quiet_is_quiet(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """-q leaves only what the run wrote itself."""
    Life(daemon, {})
    assert ctl("run", "-q", "--", "x")[2] == "no\n"


def test_a_program_that_could_not_be_started(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """127, and the reason, even with -q: there is no output that would tell it."""
    cause = {"kind": "spawn_failed", "error": "no such file: x"}
    Life(daemon, {"outcome": "failed", "exit_code": None, "cause": cause})
    code, _, err = ctl("run", "-q", "--", "x")
    assert code == 127
    assert "no such file: x" in err


def test_json_is_the_ended_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """-o name and json print the run in place of its output."""
    Life(daemon, {})
    assert ctl("run", "-o", "name", "--", "x")[1] == RUN_ID + "\n"


def start(*argv: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mosaicctl", "run", *argv, "--", "x"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip


def test_the_first_interrupt_stops_the_run_and_follows_it(daemon: ScriptedDaemon) -> None:
    """Ctrl-C: the run is asked to stop, its end is awaited, and the code is 130."""
    life = Life(daemon, {"outcome": "cancelled", "exit_code": None, "signal": 15}, stays=True)
    process = start()
    daemon.wait_for(lambda: len(daemon.asked("run.logs")) >= 4)
    # The stop's event must come on the watcher's connection, which is the same one.
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert life.is_stopped.is_set()
    assert "second Ctrl-C" in err
    assert out.startswith("first\n")


def test_a_second_interrupt_leaves(daemon: ScriptedDaemon) -> None:
    """Ctrl-C twice: the client leaves at once, the daemon ends the run in its own time."""
    life = Life(daemon, {}, stays=True)

    def stop_in_its_own_time(params: dict[str, Any], peer: Peer) -> object:
        life.is_stopped.set()
        return a_run(want="stop")

    daemon.handlers["run.stop"] = stop_in_its_own_time
    process = start()
    daemon.wait_for(lambda: len(daemon.asked("run.logs")) >= 4)
    process.send_signal(signal.SIGINT)
    assert life.is_stopped.wait(DEADLINE_S)
    process.send_signal(signal.SIGINT)
    assert "run-1" in process.communicate(timeout=DEADLINE_S)[1].splitlines()[-1]
    assert process.returncode == 130


def test_an_interrupt_can_detach(daemon: ScriptedDaemon) -> None:
    """With --detach-on-interrupt the first Ctrl-C leaves the run alone."""
    Life(daemon, {}, stays=True)
    process = start("--detach-on-interrupt")
    daemon.wait_for(lambda: len(daemon.asked("run.logs")) >= 4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert not daemon.asked("run.stop")
