"""Hostile peers against the real daemon: others are answered meanwhile, and its memory stays bounded."""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mosaicctl.client import Disconnected
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until
from tests.rpc.test_fairness import FLOODER, KINDS

#: What a user who is served during a flood waits at most, in the middle of many requests.
MEDIAN_S = 0.1

#: Connects as fast as it can, and hangs up at once, or after half a line.
CONNECTOR = """
import socket, sys
path, what = sys.argv[1], sys.argv[2]
while True:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
        if what == "half":
            link.send(b'{"jsonrpc":"2.0","method":"daemon.he')
    except OSError:
        pass
    link.close()
"""

#: Submits held runs as fast as it is answered, 64 at a time.
SUBMITTER = """
import json, socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
link.connect(sys.argv[1])
answers = link.makefile("rb")
message = {"jsonrpc": "2.0", "method": "run.submit", "id": 1,
           "params": {"command": ["true"], "hold": True, "cwd": "/", "name": "flood"}}
line = json.dumps(message).encode() + b"\\n"
link.sendall(line * 64)
while True:
    if not answers.readline():
        break
    link.sendall(line)
"""

#: Asks for all there is, and never reads.
MUTE = """
import socket, sys, time
link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
link.connect(sys.argv[1])
link.setblocking(False)
line = b'{"jsonrpc":"2.0","method":"rpc.discover","id":1}\\n' * 100
watch = b'{"jsonrpc":"2.0","method":"run.watch","id":1,"params":{"since":0}}\\n' * 60
try:
    link.send(watch)
    while True:
        link.send(line)
except BlockingIOError:
    pass
time.sleep(1000)
"""

PEERS = {
    "connects": (CONNECTOR, "whole"),
    "half lines": (CONNECTOR, "half"),
    "submits": (SUBMITTER, ""),
    "mute": (MUTE, ""),
    **{kind: (FLOODER, kind) for kind in KINDS},
}
CONNECTIONS = {"requests": 20, "large": 8, "batches": 20}


@contextmanager
def peers(harness: DaemonHarness, kind: str, processes: int = 2) -> Iterator[None]:
    code, word = PEERS[kind]
    arguments = [str(harness.socket), *([str(CONNECTIONS.get(kind, 10))] if code is FLOODER else []), word]
    started = [subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def rss_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def held_up_s(harness: DaemonHarness) -> float:
    """How long the daemon's loop, and who asks it, were ready to run while others had the processors."""
    assert harness.process is not None
    waited_s = 0.0
    for who in (str(harness.process.pid), "thread-self"):
        try:
            waited_s += int(Path(f"/proc/{who}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            continue
    return waited_s


def answered(harness: DaemonHarness, count: int) -> list[float]:
    """Return how long each of `count` questions of an ordinary client took on a machine of its own."""
    taken = []
    with harness.client() as client:
        for number in range(count):
            began, waited_s = time.monotonic(), held_up_s(harness)
            client.call(*(("daemon.hello", {}) if number % 4 else ("run.list", {"limit": 5})))
            taken.append(max(0.0, time.monotonic() - began - (held_up_s(harness) - waited_s)))
    return taken


def attack(harness: DaemonHarness, kind: str, count: int) -> tuple[float, float, int]:
    """Return median and worst answer in seconds, and the daemon's memory in KiB, under one kind of peer."""
    assert harness.process is not None
    with peers(harness, kind):
        answered(harness, 5)
        taken = answered(harness, count)
        memory = rss_kib(harness.process.pid)
    return statistics.median(taken), max(taken), memory


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        (("half lines", "submits", "mute"), 25),
        pytest.param(tuple(PEERS), 100, marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_others_are_answered_while_a_peer_is_hostile(
    kinds: tuple[str, ...], count: int, build: Build
) -> None:
    """Under every flood the median of an ordinary client's answers is below 100 ms, and memory is bounded."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED, Catalogue.WATCHER_LAGS)
    assert harness.process is not None
    before = rss_kib(harness.process.pid)
    told = []
    for kind in kinds:
        median, worst, memory = attack(harness, kind, count)
        told.append(f"{kind}: median {median * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms, {memory >> 10} MiB")
        assert median < MEDIAN_S, told
        assert memory < before + (200 << 10), told
    print("\n" + "\n".join(told))
    run_id = harness.submit("true", hold=True)
    harness.call("run.set", run_id=run_id, priority=9)
    harness.call("run.release", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_a_full_daemon_of_idle_connections_serves_who_is_in(build: Build) -> None:
    """Every place taken by peers that say nothing: who is in is served, the next is told why."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED)
    with ExitStack() as stack, harness.client() as mine:
        refused = None
        for number in range(520):
            link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            link.connect(str(harness.socket))
            if number % 2:
                with suppress(BrokenPipeError):  # one that is refused is hung up on at once
                    link.sendall(b'{"jsonrpc":"2.0","me')
            refused = link
        assert refused is not None
        refused.settimeout(60)
        answer = json.loads(refused.makefile("rb").readline())
        assert answer["error"]["data"]["name"] == "unavailable"
        assert mine.call("daemon.health")["ready"]

    def is_served() -> bool:
        try:
            return bool(harness.call("daemon.health")["ready"])
        except (MosaicError, Disconnected):
            return False  # it has not seen yet who hung up

    wait_until(is_served, bool, "places come back")


def test_a_run_is_started_and_ended_under_fire(build: Build) -> None:
    """While peers flood, a run is submitted, works, is told of and ends exactly."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED)
    with peers(harness, "requests", 1), peers(harness, "half lines", 1):
        run_id = harness.submit("sh", "-c", "echo under fire; exit 4")
        run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"]) == ("failed", 4)
    assert harness.stdout(run_id) == b"under fire\n"


def test_a_command_that_could_not_be_shown_is_refused(build: Build) -> None:
    """What is accepted can be shown: arguments above the limit are refused with the rule."""
    harness = build()
    with pytest.raises(MosaicError) as refused:
        harness.submit("true", *["x" * 1000] * 300)
    assert "262144" in refused.value.message
    run_id = harness.submit("true", *["\x01" * 1000] * 40, hold=True)
    assert len(harness.get(run_id)["command"]) == 41
    assert os.path.getsize(harness.state_dir / "runs" / run_id / "spec.json") < 1 << 20
