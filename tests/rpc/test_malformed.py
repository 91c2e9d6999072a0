"""Guarantee 11: bad input gets a clear error, changes nothing, and the connection continues."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosaicd.config.settings import soft_limit_descriptors
from mosaicd.host.descriptors import raise_soft_limit, set_soft_limit
from mosaicd.protocol.errors import ERRORS
from mosaicd.protocol.methods import METHODS
from mosaicd.rpc.validate import dataclass_of
from tests.harness.waiting import wait_in_loop
from tests.rpc.conftest import Start
from tests.rpc.serving import TIMEOUT_S, Peer, Serving

HELLO = b'{"jsonrpc":"2.0","method":"daemon.hello","id":7}\n'


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"hello", "parse_error"),
        (b'{"jsonrpc":"2.0"', "parse_error"),
        (b'{"jsonrpc":"2.0","method":"a","id":1} trailing', "parse_error"),
        (b"\xff\xfe{}", "parse_error"),
        (b'{"a":"\xff"}', "parse_error"),
        (b'{"a":"\\ud800"}', "parse_error"),
        (b"\xef\xbb\xbf{}", "parse_error"),
        (b'{"a":NaN}', "parse_error"),
        (b'{"a":1e999}', "parse_error"),
        (b"[" * 40_000, "parse_error"),
        (b'{"a":' * 40_000, "parse_error"),
        (b"[" * 100_000, "too_large"),
        (b"[" + b"{}," * 100_000 + b"0]", "too_large"),
        (b"9" * 900_000, "parse_error"),
        (b"\x00\x01\x02", "parse_error"),
        (b"1", "invalid_request"),
        (b"null", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"{}", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'{"jsonrpc":"1.0","method":"daemon.hello"}', "invalid_request"),
        (b'{"jsonrpc":2.0,"method":"daemon.hello"}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":1}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","params":null}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","params":"x"}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","id":{}}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","id":true}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","id":123456789012345678901234567890}', "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"daemon.hello","id":"' + b"x" * 129 + b'"}', "invalid_request"),
    ],
)
async def test_a_malformed_line_gets_its_error(line: bytes, name: str, peer: Peer) -> None:
    """A malformed line gets its error code and a null id, and the next request is answered."""
    peer.send(line + b"\n" + HELLO)
    reply = await peer.receive()
    assert (reply["id"], reply["error"]["data"]["name"]) == (None, name)
    assert (await peer.receive())["id"] == 7


async def test_the_id_of_an_invalid_request_is_echoed(peer: Peer) -> None:
    """If the id of an invalid request can be read, the error has it."""
    peer.send(b'{"jsonrpc":"2.0","id":"mine","method":5}\n{"id":0}\n')
    assert (await peer.receive())["id"] == "mine"
    assert (await peer.receive())["id"] == 0


async def test_an_oversized_line_is_refused_and_the_connection_continues(peer: Peer) -> None:
    """A line of 1 MiB is served; one byte more is `too_large`, and the next request is served."""
    frame = b'{"jsonrpc":"2.0","method":"daemon.hello","id":1,"params":{"client":"%s"}}'
    fill = (1 << 20) - len(frame) + 2
    peer.send(frame % (b"x" * fill) + b"\n")
    assert (await peer.receive())["result"]["protocol"] == 1
    peer.send(frame % (b"x" * (fill + 1)) + b"\n" + HELLO)
    refusal = await peer.receive()
    assert (refusal["id"], refusal["error"]["data"]["name"]) == (None, "too_large")
    assert refusal["error"]["data"]["limit_bytes"] == 1 << 20
    assert (await peer.receive())["id"] == 7


async def test_an_endless_line_costs_no_memory(peer: Peer, serving: Serving) -> None:
    """32 MiB without a newline are dropped as they arrive, with one error; the connection continues."""
    for _ in range(32):
        peer.send(b"x" * (1 << 20))
        await peer.writer.drain()
    peer.send(b"\n" + HELLO)
    assert (await peer.receive())["error"]["data"]["name"] == "too_large"
    assert (await peer.receive())["id"] == 7
    (connection,) = serving.server.connections
    assert not connection._reader._buffer


@pytest.mark.parametrize("incomplete_line", [b'{"jsonrpc":"2.0","method":"run.su', b"\xc3", b"{", HELLO[:-1]])
async def test_a_disconnect_in_the_middle_of_a_line_changes_nothing(
    incomplete_line: bytes, serving: Serving
) -> None:
    """If a client disconnects in the middle of a line, its connection is removed."""
    peer = await serving.peer()
    await peer.call("daemon.hello")
    peer.send(incomplete_line)
    await peer.writer.drain()
    peer.writer.close()
    await wait_in_loop(lambda: not serving.server.connections, "the connection is removed")


async def test_blank_lines_get_no_reply(peer: Peer) -> None:
    """Blank lines get no reply, and \\r\
     ends a line too."""
    peer.send(b"\n\r\n  \n" + HELLO[:-1] + b"\r\n\n" * 5000 + HELLO)
    assert (await peer.receive())["id"] == 7
    assert (await peer.receive())["id"] == 7


async def test_a_line_may_arrive_in_pieces(peer: Peer) -> None:
    """A request that arrives byte by byte is answered."""
    for byte in HELLO:
        peer.send(bytes([byte]))
        await peer.writer.drain()
    assert (await peer.receive())["id"] == 7


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
METHOD_NAMES = sorted(METHODS.keys() - {"run.wait", "run.submit", "worker.list"})


@st.composite
def near_requests(draw: st.DrawFn) -> Any:
    """Draw a message that resembles a request, with any value in any place."""
    classes = [dataclass_of(row.params) for row in METHODS.values()]
    names = sorted({field.name for cls in classes for field in fields(cls)})
    message = {
        "jsonrpc": draw(st.just("2.0") | json_values),
        "method": draw(st.sampled_from(METHOD_NAMES) | st.text()),
        "params": draw(
            st.dictionaries(st.sampled_from(names) | st.text(), json_values, max_size=5) | json_values
        ),
        "id": draw(st.integers(0, 9) | json_values),
    }
    for name in draw(st.sets(st.sampled_from(sorted(message)), max_size=2)):
        del message[name]
    return message


lines = st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")) | (
    near_requests() | st.lists(near_requests(), max_size=4) | json_values
).map(lambda value: json.dumps(value).encode())


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(sent=st.lists(lines, min_size=1, max_size=4))
def test_any_input_gets_valid_replies_and_the_connection_continues(sent: list[bytes], served: Any) -> None:
    """After any input each reply is valid JSON-RPC with a known code, and the client is still served."""
    served.run(check_replies(served.serving, sent))


async def check_replies(serving: Serving, sent: list[bytes]) -> None:
    peer = await serving.peer()
    serving.peers.clear()
    for line in sent:
        peer.send(line + b"\n")
    peer.send(b'{"jsonrpc":"2.0","method":"daemon.hello","id":"the end"}\n')
    is_answered = False
    while not is_answered:
        message = await peer.receive()
        replies = message if isinstance(message, list) else [message]
        for reply in replies:
            if "method" in reply:
                continue
            assert reply["jsonrpc"] == "2.0" and ("result" in reply) != ("error" in reply)
            if "error" in reply:
                cls = ERRORS[reply["error"]["code"]]
                assert reply["error"]["data"]["name"] == cls.name != "internal_error", reply
            is_answered = is_answered or reply["id"] == "the end"
    peer.disconnect()


async def test_connections_of_a_user_are_limited(start: Start) -> None:
    """A connection above the limit is refused with a reason; the others continue, and places are freed."""
    serving = await start(limits={"connections_per_user": 8})
    connected = [await serving.peer() for _ in range(8)]
    refused = await serving.peer()
    assert (await refused.receive())["error"]["data"]["name"] == "unavailable"
    await refused.wait_until_closed()
    assert (await connected[0].call("daemon.hello"))["ready"]
    connected[1].disconnect()
    await wait_in_loop(lambda: len(serving.server.connections) == 7, "the place is free again")
    assert (await (await serving.peer()).call("daemon.hello"))["ready"]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raise the soft limit of open descriptors for the test, as the daemon does."""
    before = soft_limit_descriptors()
    raise_soft_limit()
    yield
    set_soft_limit(before)


@pytest.mark.usefixtures("many_descriptors")
async def test_ten_thousand_idle_connections_do_not_stop_the_daemon(serving: Serving) -> None:
    """With 10,000 idle connections, those above the limit are refused and other clients are answered."""
    first = await serving.peer()
    loop = asyncio.get_running_loop()
    idle: list[socket.socket] = []
    try:
        for number in range(10_000):
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.setblocking(False)
            await loop.sock_connect(link, str(serving.settings.socket))
            if len(idle) < 600:
                idle.append(link)
            else:
                link.close()
            if number % 1000 == 0:
                async with asyncio.timeout(TIMEOUT_S):
                    assert (await first.call("daemon.hello"))["ready"]
    finally:
        for link in idle:
            link.close()
    await wait_in_loop(lambda: len(serving.server.connections) == 1, "one connection remains")
    assert (await first.call("daemon.hello"))["ready"]


async def test_shims_connect_although_the_user_has_no_free_connection(start: Start) -> None:
    """The limit of connections per user does not apply to shims."""
    serving = await start(limits={"connections_per_user": 4})
    for _ in range(4):
        await serving.peer()
    await wait_in_loop(lambda: len(serving.server.connections) == 4, "all connections are in use")
    serving.shims.pids.add(os.getpid())
    assert (await (await serving.peer()).call("daemon.hello"))["ready"]
