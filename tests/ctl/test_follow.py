"""Streams: `logs` prints every byte once and `watch` every event once, over restarts of the daemon."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mosaicd.protocol.errors import Conflict
from tests.ctl.scripted import Hangup, Peer, ScriptedDaemon, a_chunk, a_run, an_ended_run, an_event

Ctl = Callable[..., tuple[int, str, str]]
RUN_ID = a_run()["run_id"]


class Spool:
    """Output served in pieces like run.logs; calls in `hang_up_at` close the connection."""

    def __init__(self, data: bytes, chunk_bytes: int = 10) -> None:
        self.data = data
        self.chunk_bytes = chunk_bytes
        self.hang_up_at: set[int] = set()
        self._calls = 0

    def read(self, params: dict[str, Any], peer: Peer) -> object:
        self._calls += 1
        if self._calls in self.hang_up_at:
            raise Hangup
        cursor = params["cursor"]
        if "tail_lines" in params:
            cursor = len(self.data) - len(b"".join(self.data.splitlines(True)[-params["tail_lines"] :]))
        data = self.data[cursor : cursor + self.chunk_bytes]
        end = cursor + len(data)
        reply = a_chunk(data, end, attempt=1, eof=end == len(self.data), size=len(self.data))
        if params.get("follow"):
            reply["subscription"] = 1
            self._follow(peer, end)
        return reply

    def _follow(self, peer: Peer, cursor: int) -> None:
        """Send the rest and a repeated, overlapping chunk, then the end."""
        source = {"subscription": 1, "run_id": RUN_ID, "attempt": 1, "stream": "stdout"}
        while cursor < len(self.data):
            data = self.data[cursor : cursor + self.chunk_bytes]
            cursor += len(data)
            peer.notify("run.log", a_chunk(data, cursor, **source))
        peer.notify("run.log", a_chunk(self.data[-15:], len(self.data), **source))
        peer.notify("run.end", {"subscription": 1, "reason": "terminated", "cursor": cursor})


BINARY = bytes(range(256)) * 2 + b"\r\x1b[31m no newline at the end, \xe2\x82"


@pytest.mark.parametrize("flags", [[], ["-f"]])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096])
def test_logs_prints_exactly_the_bytes_of_the_run(
    flags: list[str], chunk_bytes: int, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """`logs` prints exactly the bytes of the run, over chunks of any size, repeats and overlaps."""
    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = Spool(BINARY, chunk_bytes).read
    code, out, err = ctl("logs", *flags, "x")
    assert (code, err) == (0, "")
    assert out.encode(errors="surrogateescape") == BINARY


def test_logs_tail_prints_the_last_lines(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """--tail N prints the last N lines once and continues from there."""
    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = Spool(b"one\ntwo\nthree\nfour\n", 4).read
    assert ctl("logs", "--tail", "2", "x")[1] == "three\nfour\n"


def test_logs_both_keeps_the_streams_apart(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """--both prints each stream to the same stream; --stderr prints it to standard output."""
    spools = {"stdout": Spool(b"out"), "stderr": Spool(b"err")}
    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = lambda params, peer: spools[params["stream"]].read(params, peer)
    assert ctl("logs", "--both", "x") == (0, "out", "err")
    assert ctl("logs", "--stderr", "x") == (0, "err", "")


@pytest.mark.parametrize("hang_up_at", [{2}, {2, 3}])
def test_logs_follow_continues_after_a_restart(
    hang_up_at: set[int], daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """`logs -f` reconnects, continues at the right byte, and reports that on standard error."""
    spool = Spool(b"0123456789" * 20)
    spool.hang_up_at = hang_up_at

    def read(params: dict[str, Any], peer: Peer) -> object:
        reply = spool.read(params, peer)
        if len(daemon.requests("run.logs")) == 1:
            peer.after = [
                *peer.after[:3],
                ("run.end", {"subscription": 1, "reason": "draining", "cursor": 40}),
            ]
        return reply

    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = read
    code, out, err = ctl("logs", "-f", "x")
    assert (code, out) == (0, "0123456789" * 20)
    assert "mosaicctl: reconnected to the daemon" in err
    assert daemon.connections == 1 + len(hang_up_at)


def test_logs_follow_fetches_missing_bytes(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If a notification begins after the cursor, the client fetches the missing bytes."""
    spool = Spool(b"abcdefghijklmnopqrstuvwxyz", 5)

    def read(params: dict[str, Any], peer: Peer) -> object:
        reply = spool.read(params, peer)
        if params.get("follow"):
            del peer.after[0:2]
        return reply

    daemon.handlers["run.get"] = lambda params, peer: a_run()
    daemon.handlers["run.logs"] = read
    assert ctl("logs", "-f", "x")[1] == "abcdefghijklmnopqrstuvwxyz"


NAMES = ["b", "a-sweep-of-17", "taxi", "y" * 60]


def serve_events(daemon: ScriptedDaemon, break_after: int | None) -> None:
    """Serve five events of a run; the first subscription ends after `break_after` events."""
    events = [
        an_event(11, "dispatched", "HSHK", slots=[0]),
        an_event(12, "registered", "RDY"),
        an_event(13, "started", "EXEC"),
        an_event(14, "exited", "EXEC", exit_code=0),
        an_event(15, "finished", "TERM", outcome="succeeded"),
    ]

    def watch(params: dict[str, Any], peer: Peer) -> object:
        fresh = [event for event in events if event["seq"] > params.get("since", 10)]
        subscription = len(daemon.requests("run.watch"))  # a connection's subscriptions are numbered
        is_first = subscription == 1
        if is_first and break_after is not None:
            fresh = fresh[:break_after]
        for event in fresh:
            peer.notify("run.event", {**event, "subscription": subscription})
        if is_first and break_after is not None:
            peer.notify("run.end", {"subscription": 1, "reason": "draining", "cursor": 10})
        return {
            "epoch": "e1",
            "cursor": 10,
            "runs": [a_run(state="INIT", rev=1)],
            "subscription": subscription,
        }

    daemon.handlers["run.get"] = lambda params, peer: a_run(state="INIT", rev=1)
    daemon.handlers["run.watch"] = watch


@pytest.mark.parametrize("break_after", [None, 0, 1, 3])
def test_watch_prints_every_event_once(break_after: int | None, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Piped, `watch` prints each event once and in order, over a restart, and ends with the run."""
    serve_events(daemon, break_after)
    code, out, err = ctl("watch", "x")
    assert code == 0
    kinds = [line.split()[3] for line in out.splitlines()[1:]]
    assert kinds == ["dispatched", "registered", "started", "exited", "finished"]
    assert [line.split()[2] for line in out.splitlines()] == ["INIT", "HSHK", "RDY", "EXEC", "EXEC", "TERM"]
    if break_after is not None:
        second = daemon.requests("run.watch")[1]
        assert (second["since"], second["epoch"]) == (10 + break_after, "e1")
        assert "reconnected" in err


def test_watch_jsonl_prints_the_events(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`watch -o jsonl` prints the events as JSON."""
    serve_events(daemon, None)
    events = [json.loads(line) for line in ctl("watch", "-o", "jsonl", "x")[1].splitlines()]
    assert [event["seq"] for event in events] == [11, 12, 13, 14, 15]
    assert events[0]["slots"] == [0]


def test_columns_of_watch_are_aligned(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """The states are in one column for names of different lengths, except very long ones."""
    runs = {str(n): a_run(n, name=name, state="TERM", outcome="failed") for n, name in enumerate(NAMES)}
    daemon.handlers["run.get"] = lambda params, peer: runs[params["run_id"]]
    lines = ctl("watch", *runs)[1].splitlines()
    assert [line[10:].split()[0] for line in lines] == NAMES
    assert {line.index("TERM ") for line in lines[:3]} == {10 + len(NAMES[1]) + 2}


def test_watch_of_an_ended_run_prints_one_line_in_every_format(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`watch` of an ended run prints one line: its last state, as an event with -o jsonl, or its id."""
    cause = {"kind": "exit_code", "exit_code": 3}
    ended = an_ended_run(1, outcome="failed", exit_code=3, cause=cause)
    daemon.handlers["run.get"] = lambda params, peer: ended
    (line,) = ctl("watch", "-o", "jsonl", "x")[1].splitlines()
    event = json.loads(line)
    assert event["kind"] == "as_found" and event["at"] > 1e9
    keys = ("run_id", "state", "outcome", "cause", "exit_code", "signal", "attempt", "rev", "finished_at")
    assert {key: event[key] for key in keys} == {key: ended[key] for key in keys}
    assert ctl("watch", "-o", "name", "x")[1] == f"{ended['run_id']}\n"
    assert len(ctl("watch", "x")[1].splitlines()) == 1


def test_watch_jsonl_of_a_live_run_prints_only_its_events(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`watch -o jsonl` of a live run prints only its events, to its end."""
    serve_events(daemon, None)
    kinds = [json.loads(line)["kind"] for line in ctl("watch", "-o", "jsonl", "x")[1].splitlines()]
    assert kinds == ["dispatched", "registered", "started", "exited", "finished"]


def test_watch_reports_a_restored_registry(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If the registry was restored meanwhile, the old cursor is refused; `watch` reports it and continues."""
    serve_events(daemon, 1)
    ledger = daemon.handlers["run.watch"]

    def watch(params: dict[str, Any], peer: Peer) -> object:
        if params.get("epoch") == "e1":
            raise Conflict("this is epoch e2")
        return ledger(params, peer)

    daemon.handlers["run.watch"] = watch
    code, _, err = ctl("watch", "x")
    assert code == 0
    assert "restored" in err


def test_watch_recovers_events_after_a_gap(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """After run.gap, `watch` subscribes again from its cursor, and no event is lost."""
    serve_events(daemon, None)
    ledger = daemon.handlers["run.watch"]

    def watch(params: dict[str, Any], peer: Peer) -> object:
        reply = ledger(params, peer)
        if len(daemon.requests("run.watch")) == 1:
            peer.after = [
                *peer.after[:1],
                ("run.gap", {"subscription": 1, "from": 12, "to": 13}),
                *peer.after[3:],
            ]
        return reply

    daemon.handlers["run.watch"] = watch
    daemon.handlers["run.unwatch"] = lambda params, peer: {}
    out = ctl("watch", "x")[1]
    assert [line.split()[3] for line in out.splitlines()[1:]][:3] == ["dispatched", "registered", "started"]
    assert daemon.requests("run.unwatch") == [{"subscription": 1}]


def test_watch_of_an_ended_run_returns_immediately(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`watch` of an ended run prints its end and returns immediately."""
    daemon.handlers["run.get"] = lambda params, peer: an_ended_run()
    code, out, _ = ctl("watch", "x")
    assert code == 0
    assert "ended succeeded" in out


def test_wait_continues_after_a_restart(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`wait` repeats its request on a new connection after a restart of the daemon."""

    def wait(params: dict[str, Any], peer: Peer) -> object:
        if len(daemon.requests("run.wait")) == 1:
            daemon.stop()
            daemon.start()
            raise Hangup
        return an_ended_run(outcome="failed", exit_code=3)

    daemon.handlers["run.wait"] = wait
    code, _, _ = ctl("wait", "x")
    assert code == 3
    assert len(daemon.requests("run.wait")) == 2


def test_logs_follow_prints_an_attempt_that_began_during_a_restart(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If an attempt begins during a restart, `logs -f` prints the rest of the old one, then the new one."""
    texts = {1: b"first attempt\n", 2: b"second\n"}
    newest = [1]

    def read(params: dict[str, Any], peer: Peer) -> object:
        attempt = params.get("attempt") or newest[0]
        end = 5 if newest == [1] else len(texts[attempt])
        reply = a_chunk(texts[attempt][params["cursor"] : end], end, attempt=attempt)
        if params.get("follow"):
            reply["subscription"] = len(daemon.calls)
            reason = "draining" if newest == [1] else "terminated"
            peer.notify("run.end", {"subscription": reply["subscription"], "reason": reason, "cursor": 0})
        else:
            newest[0] = 2 if attempt == 1 else newest[0]
        return reply

    daemon.handlers["run.get"] = lambda params, peer: a_run(attempt=newest[0])
    daemon.handlers["run.logs"] = read
    assert ctl("logs", "-f", "x")[1] == "first attempt\nsecond\n"


def test_logs_follow_prints_an_attempt_that_begins_before_the_subscription(
    daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """If an attempt begins between `run.get` and the subscription, `logs -f` prints the rest of the old one,
    then all of the new one."""
    texts = {1: b"first attempt\n", 2: b"second attempt, which is longer\n"}
    newest = [1]
    follows: list[dict[str, Any]] = []
    unsubscribed: list[int] = []

    def read(params: dict[str, Any], peer: Peer) -> object:
        if params.get("follow"):
            follows.append(params)
            newest[0] = 1 if len(follows) == 1 else 2  # the second one finds a newer attempt than `run.get`
        attempt = params.get("attempt") or newest[0]
        text = texts[attempt][:5] if newest == [1] else texts[attempt]
        end = max(len(text), params["cursor"])
        reply = a_chunk(text[params["cursor"] :], end, attempt=attempt)
        if params.get("follow"):
            reply["subscription"] = len(follows)
            reason = "draining" if len(follows) == 1 else "terminated"
            peer.notify("run.end", {"subscription": len(follows), "reason": reason, "cursor": 0})
        return reply

    daemon.handlers["run.get"] = lambda params, peer: a_run(attempt=newest[0])
    daemon.handlers["run.logs"] = read
    daemon.handlers["run.unwatch"] = lambda params, peer: unsubscribed.append(params["subscription"])
    code, out, _ = ctl("logs", "-f", "x")
    assert (code, out) == (0, "first attempt\nsecond attempt, which is longer\n")
    assert unsubscribed == [2]
