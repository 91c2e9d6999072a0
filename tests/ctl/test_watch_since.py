"""`watch --since`: past events come first; a run without an event since then is shown as it is."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mosaicd.protocol import Json
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run, an_ended_run, an_event

Ctl = Callable[..., tuple[int, str, str]]


def serve(daemon: ScriptedDaemon, runs: list[Json], events: list[Json]) -> None:
    """Serve these runs and, to each subscription, these events."""

    def watch(params: dict[str, Any], peer: Peer) -> object:
        for event in events:
            peer.notify("run.event", event)
        return {"epoch": "e1", "cursor": 10, "runs": [], "subscription": 1}

    by_id = {run["run_id"]: run for run in runs}
    daemon.handlers["run.get"] = lambda params, peer: by_id[params["run_id"]]
    daemon.handlers["run.watch"] = watch


@pytest.mark.parametrize("since", ["10m", "10"])
def test_watch_ends_if_a_run_had_ended_before_the_time(since: str, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`watch A B --since T` ends with B also if A ended before T, and prints the end of A."""
    old, live = an_ended_run(1, outcome="failed"), a_run(2, rev=5)
    end = an_event(12, "finished", "TERM", live["run_id"], outcome="succeeded")
    serve(daemon, [old, live], [an_event(11, "exited", "EXEC", live["run_id"]), end])
    code, out, _ = ctl("watch", "--since", since, old["run_id"], live["run_id"])
    lines = [line.split()[1:4] for line in out.splitlines()]
    assert code == 0
    assert lines == [["run-2", "EXEC", "exited"], ["run-2", "TERM", "finished"], ["run-1", "TERM", "ended"]]


def test_watch_prints_the_end_of_a_run_without_later_events_in_every_format(
    daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """A run that ended before the time is printed once: as a line, as an event, or by its id."""
    old = an_ended_run(1)
    serve(daemon, [old], [])
    (line,) = ctl("watch", "--since", "10m", old["run_id"])[1].splitlines()
    assert "ended succeeded" in line
    (line,) = ctl("watch", "-o", "jsonl", "--since", "10m", old["run_id"])[1].splitlines()
    assert json.loads(line)["kind"] == "as_found"
    assert ctl("watch", "-o", "name", "--since", "10m", old["run_id"])[1] == f"{old['run_id']}\n"


def test_watch_prints_the_past_events_of_an_ended_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """An end among the past events is printed once; each event has the state that the run had then."""
    old = an_ended_run(1, rev=12)
    events = [an_event(11, "started", "EXEC"), an_event(12, "finished", "TERM", outcome="succeeded")]
    serve(daemon, [old], events)
    out = ctl("watch", "--since", "0", old["run_id"])[1]
    assert [line.split()[2:4] for line in out.splitlines()] == [["EXEC", "started"], ["TERM", "finished"]]


def test_watch_draws_a_run_without_later_events_as_it_is(daemon: ScriptedDaemon) -> None:
    """On a terminal, a run that has been in EXEC since before the time is drawn in EXEC, not in INIT."""
    live, ending = a_run(1, rev=5), a_run(2, rev=5)
    serve(daemon, [live, ending], [an_event(12, "finished", "TERM", ending["run_id"], outcome="failed")])
    argv = [sys.executable, "-m", "mosaicctl", "--socket", str(daemon.path), "watch", "--since", "10m"]
    master, slave = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [*argv, live["run_id"], ending["run_id"]],
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    ) as client:
        os.close(slave)
        try:
            while shown.count(b"run-1") < 2:
                shown += os.read(master, 4096)
        finally:
            client.kill()
            os.close(master)
    assert b"EXEC" in shown and b"INIT" not in shown
