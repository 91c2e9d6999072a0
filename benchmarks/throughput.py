"""Runs of `true` per second, submitted over one connection, with several slots."""

import socket
import time

from benchmarks import plain
from benchmarks.harness import Failed, all_ended, private_daemon
from benchmarks.rows import Row, Target, of_rounds
from mosaicd.protocol.framing import LineReader, encode, request
from tests.harness.daemon import DaemonHarness

SLOTS = 8
#: Concurrent requests: enough that the connection is never the bottleneck.
WINDOW = 32
TARGET = Target(150.0, at_least=True)


def runs_per_s(is_quick: bool) -> list[Row]:
    """Measure from the first request until the last of the runs has ended."""
    count, rounds = (16, 1) if is_quick else (300, 3)
    ours, beside = [], []
    with private_daemon(slots=SLOTS) as harness:
        _burst(harness, 4)
        for _ in range(rounds):
            beside.append(plain.runs_per_s(count, SLOTS))
            time.sleep(plain.SETTLE_S)
            ours.append(_burst(harness, count))
    note = f"{rounds} x {count} runs, {SLOTS} slots"
    return [of_rounds("runs", "runs of `true`", "/s", ours, beside, "subprocess", TARGET, note)]


def _burst(harness: DaemonHarness, count: int) -> float:
    with harness.client() as client:
        before = client.call("daemon.health")["last_seq"]
        began = time.monotonic()
        _submit_many(harness, count)
        all_ended(client)
        took = time.monotonic() - began
        if client.call("daemon.health")["last_seq"] - before < 3 * count:
            raise Failed("fewer events than runs: not all runs were accepted")
    return count / took


def _submit_many(harness: DaemonHarness, count: int) -> None:
    """Send `count` submits over one connection, with at most WINDOW of them unanswered."""
    reader, sent, answered = LineReader(1 << 20), 0, 0
    params = {"command": ["true"], "cwd": str(harness.home)}
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(harness.socket))
        while answered < count:
            window = min(count, answered + WINDOW)
            if sent < window:
                link.sendall(b"".join(encode(request("run.submit", params, n)) for n in range(sent, window)))
                sent = window
            data = link.recv(1 << 16)
            if not data:
                raise Failed("the daemon closed the connection")
            for line in reader.feed(data):
                if b'"error":{' in bytes(line)[:80]:
                    raise Failed(f"a submit was refused: {bytes(line)[:300]!r}")
                answered += 1
