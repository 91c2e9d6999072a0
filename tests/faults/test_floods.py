"""Hostile peers flood the real daemon: other clients are answered, and its memory stays bounded."""

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

#: The limit for the median answer to an ordinary client during a flood.
MEDIAN_S = 0.1

#: Connects as fast as it can and closes immediately, or after half a line.
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

#: Submits held runs as fast as answers arrive, with 64 requests in flight.
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

#: Sends many requests with long answers and never reads.
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
    "connects": (CONNECTOR, "connect"),
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
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


def runnable_s(harness: DaemonHarness) -> float:
    """Return how long the daemon and this thread waited for a processor that other processes used."""
    assert harness.process is not None
    waited_s = 0.0
    for process in (str(harness.process.pid), "thread-self"):
        try:
            waited_s += int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            continue
    return waited_s


def answer_times(harness: DaemonHarness, count: int) -> list[float]:
    """Return the seconds that each of `count` requests took, without the waits for a processor."""
    taken = []
    with harness.client() as client:
        for number in range(count):
            began, waited_s = time.monotonic(), runnable_s(harness)
            client.call(*(("daemon.hello", {}) if number % 4 else ("run.list", {"limit": 5})))
            taken.append(max(0.0, time.monotonic() - began - (runnable_s(harness) - waited_s)))
    return taken


def attack(harness: DaemonHarness, kind: str, count: int) -> tuple[float, float, int]:
    """Return the median and the worst answer in seconds, and the daemon's memory in KiB, during a flood."""
    assert harness.process is not None
    with peers(harness, kind):
        answer_times(harness, 5)
        taken = answer_times(harness, count)
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
def test_clients_are_answered_while_hostile_peers_flood_the_socket(
    kinds: tuple[str, ...], count: int, build: Build
) -> None:
    """During every kind of flood the median answer takes under 100 ms, and the daemon's memory is bounded."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED, Catalogue.WATCHER_LAGS)
    assert harness.process is not None
    before = rss_kib(harness.process.pid)
    figures = []
    for kind in kinds:
        median, worst, memory = attack(harness, kind, count)
        figures.append(
            f"{kind}: median {median * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms, {memory >> 10} MiB"
        )
        assert median < MEDIAN_S, figures
        assert memory < before + (200 << 10), figures
    print("\n" + "\n".join(figures))
    run_id = harness.submit("true", hold=True)
    harness.call("run.set", run_id=run_id, priority=9)
    harness.call("run.release", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_connected_client_is_served_while_all_connections_are_taken(build: Build) -> None:
    """If idle peers take all connections, a connected client is served; a new connection gets an error."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED)
    with ExitStack() as stack, harness.client() as client:
        refused = None
        for number in range(520):
            link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            link.connect(str(harness.socket))
            if number % 2:
                with suppress(BrokenPipeError):  # the daemon closes a refused connection immediately
                    link.sendall(b'{"jsonrpc":"2.0","me')
            refused = link
        assert refused is not None
        refused.settimeout(60)
        answer = json.loads(refused.makefile("rb").readline())
        assert answer["error"]["data"]["name"] == "unavailable"
        assert client.call("daemon.health")["ready"]

    def is_served() -> bool:
        try:
            return bool(harness.call("daemon.health")["ready"])
        except (MosaicError, Disconnected):
            return False  # the daemon has not noticed yet that the connections are closed

    wait_until(is_served, bool, "a new connection is served")


def test_run_starts_and_ends_exactly_during_a_flood(build: Build) -> None:
    """During a flood a run is submitted, its end is reported, and its exit code and output are exact."""
    harness = build()
    harness.allow(Catalogue.PEER_REFUSED)
    with peers(harness, "requests", 1), peers(harness, "half lines", 1):
        run_id = harness.submit("sh", "-c", "echo during a flood; exit 4")
        run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"]) == ("failed", 4)
    assert harness.stdout(run_id) == b"during a flood\n"


def test_submit_of_a_command_too_long_to_show_is_refused(build: Build) -> None:
    """Arguments above 262144 bytes are refused with the limit; shorter ones are accepted and can be shown."""
    harness = build()
    with pytest.raises(MosaicError) as refused:
        harness.submit("true", *["x" * 1000] * 300)
    assert "262144" in refused.value.message
    run_id = harness.submit("true", *["\x01" * 1000] * 40, hold=True)
    assert len(harness.get(run_id)["command"]) == 41
    assert os.path.getsize(harness.state_dir / "runs" / run_id / "spec.json") < 1 << 20
