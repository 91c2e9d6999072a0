"""A client that floods the daemon delays only itself: other clients are answered as before."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.waiting import wait_in_loop
from tests.rpc.serving import Peer, Serving

#: Sends what it is told, over several connections, as fast as the daemon takes it; reads what comes back.
FLOODER = """
import selectors, socket, sys
path, count, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
get = b'{"jsonrpc":"2.0","method":"run.get","id":1,"params":%s}\\n'
data = {
    "requests": b'{"jsonrpc":"2.0","method":"daemon.hello","id":1}\\n' * 2000,
    "unknown": b'{"jsonrpc":"2.0","method":"run.stopp","id":1}\\n' * 2000,
    "blank": b"\\n" * (1 << 17),
    "spaces": b" \\n\\t\\r\\n" * (1 << 15),
    "garbage": b"x\\n" * (1 << 16),
    "lists": get % (b'{"run_id":[' + b"[]," * 300000 + b"0]}"),
    "names": get % (b"{" + b",".join(b'"run_idd%d":0' % number for number in range(60000)) + b"}"),
    "large": get % (b'{"run_id":[' + b'"a",' * 250000 + b"0]}"),
    "config": get % (b'{"config":{"a":[' + b'{"a":"bcdefghijklmno"},' * 45000 + b"0]}}"),
    "oversized": b"x" * (3 << 20) + b"\\n",
    "batches": b"[" + b",".join([b'{"jsonrpc":"2.0","method":"daemon.hello","id":1}'] * 50) + b"]\\n",
    "deep": b"[" * (1 << 19) + b"\\n",
}[what]
poll = selectors.DefaultSelector()
for _ in range(count):
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(path)
    link.setblocking(False)
    poll.register(link, selectors.EVENT_READ | selectors.EVENT_WRITE, [0])
while True:
    for key, mask in poll.select():
        try:
            if mask & selectors.EVENT_READ and not key.fileobj.recv(1 << 16):
                sys.exit()
            if mask & selectors.EVENT_WRITE:
                key.data[0] = (key.data[0] + key.fileobj.send(data[key.data[0]:])) % len(data)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            sys.exit()
"""

KINDS = "requests unknown blank spaces garbage names lists large config oversized batches deep".split()


@asynccontextmanager
async def flood(serving: Serving, kind: str, connections: int) -> AsyncIterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", FLOODER, str(serving.settings.socket), str(connections), kind]
    )
    try:
        await wait_in_loop(lambda: len(serving.server.connections) > connections, "the flood begins")
        yield
    finally:
        process.kill()
        process.wait()


def held_up_s() -> float:
    """How long this thread, which serves, has been ready to run and had no processor: others were busy."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


async def latencies(peer: Peer, count: int) -> list[float]:
    """Measure how long answers take on a machine of our own: without what other programs took from us."""
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(count):
        began, held_up = loop.time(), held_up_s()
        assert (await peer.call("daemon.hello"))["ready"]
        taken.append(loop.time() - began - (held_up_s() - held_up))
    return taken


@pytest.mark.parametrize("kind", KINDS)
async def test_others_are_answered_during_a_flood(kind: str, serving: Serving) -> None:
    """20 connections flood: another client is answered within 100 ms (and never later than 1 s)."""
    peer = await serving.peer()
    async with flood(serving, kind, 20):
        taken = await latencies(peer, 30)
        for _ in range(2):
            if statistics.median(taken) < 0.1 and max(taken) < 1.0:
                break
            taken = await latencies(peer, 30)  # the machine itself may stand still: measured again
    print(f"{kind}: median {statistics.median(taken) * 1e3:.1f} ms, worst {max(taken) * 1e3:.1f} ms")
    assert statistics.median(taken) < 0.1, taken
    assert max(taken) < 1.0, taken
