"""One connection: order of replies, limits, back-pressure, batches, and its end."""

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any

from mosaicd.protocol.errors import NotPermitted
from mosaicd.protocol.messages import NoParams
from mosaicd.protocol.methods import Method, Role
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from tests.harness.waiting import wait_in_loop
from tests.rpc.conftest import Start
from tests.rpc.serving import TIMEOUT_S, Peer, Serving


@dataclass(frozen=True, slots=True)
class Numbered:
    """Parameters for tests."""

    number: int = 0


class Steps:
    """Test methods that wait for `go` and record their begin and end."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0
        self._go: dict[int, asyncio.Event] = {}

    def go(self, number: int) -> None:
        self._go.setdefault(number, asyncio.Event()).set()

    def extra(self, *names: str) -> dict[Method, Any]:
        return {
            Method(name, Numbered, Role.ANY, "Nothing", "A method for tests.", deadline_s=None): self.handle
            for name in names
        }

    async def handle(self, services: Services, caller: Caller, params: Numbered) -> dict[str, Any]:
        self.begun.append(params.number)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        await self._go.setdefault(params.number, asyncio.Event()).wait()
        self.ended.append(params.number)
        return {"number": params.number}


async def test_replies_come_in_the_order_of_completion(start: Start) -> None:
    """A slow request does not delay a later one."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("test.step"))).peer()
    slow, quick = peer.send_request("test.step", {"number": 1}), peer.send_request("test.step", {"number": 2})
    steps.go(2)
    assert (await peer.receive())["id"] == quick
    steps.go(1)
    assert (await peer.receive())["id"] == slow


async def test_messages_of_a_shim_are_handled_in_order(start: Start) -> None:
    """worker.* messages of one connection run one after another; other methods may overtake them."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("worker.step", "test.step"))).peer()
    first = peer.send_request("worker.step", {"number": 1})
    peer.send(b'{"jsonrpc":"2.0","method":"worker.step","params":{"number":2}}\n')
    peer.send(b'[{"jsonrpc":"2.0","method":"worker.step","params":{"number":3},"id":"in a batch"}]\n')
    last, other = (
        peer.send_request("worker.step", {"number": 4}),
        peer.send_request("test.step", {"number": 5}),
    )
    for number in (5, 4, 3, 2):
        steps.go(number)
    assert (await peer.receive())["id"] == other
    assert sorted(steps.begun) == [1, 5]
    steps.go(1)
    assert [await peer.receive() for _ in range(3)] == [
        {"jsonrpc": "2.0", "result": {"number": 1}, "id": first},
        [{"jsonrpc": "2.0", "result": {"number": 3}, "id": "in a batch"}],
        {"jsonrpc": "2.0", "result": {"number": 4}, "id": last},
    ]
    assert [number for number in steps.ended if number != 5] == [1, 2, 3, 4]


async def test_requests_in_flight_are_limited(start: Start) -> None:
    """At the limit, the daemon reads no more from the connection until replies are sent."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), limits={"in_flight": 4})
    peer, other = await serving.peer(), await serving.peer()
    for number in range(50):
        peer.send_request("test.step", {"number": number})
    await wait_in_loop(lambda: len(steps.begun) == 4, "four requests have begun")
    assert (await other.call("daemon.hello"))["ready"]
    assert len(steps.begun) == 4
    for number in range(50):
        steps.go(number)
    replies = [await peer.receive() for _ in range(50)]
    assert sorted(reply["result"]["number"] for reply in replies) == list(range(50))
    assert steps.most <= 4


# --- batches ---------------------------------------------------------------------------------------------


async def test_a_batch_is_answered_item_by_item_in_order(peer: Peer) -> None:
    """Each item of a batch, also an invalid one, gets a reply; notifications get none."""
    peer.send(
        b'[{"jsonrpc":"2.0","method":"daemon.hello","id":1},1,{"jsonrpc":"2.0","method":"daemon.hello"},'
        b'{"jsonrpc":"2.0","method":"nope","id":2},{"id":3}]\n'
    )
    replies = await peer.receive()
    assert [(reply["id"], reply.get("error", {}).get("code")) for reply in replies] == [
        (1, None), (None, -32600), (2, -32601), (3, -32600),
    ]  # fmt: skip


async def test_a_batch_of_notifications_gets_no_reply(peer: Peer) -> None:
    """The daemon sends no reply, and the connection continues."""
    peer.send(b'[{"jsonrpc":"2.0","method":"daemon.hello"}]\n')
    assert (await peer.call("daemon.hello"))["ready"]


async def test_a_batch_of_more_than_50_items_is_refused(start: Start) -> None:
    """A batch of 51 items is one error and none of them runs; 50 items are served."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("test.step"))).peer()
    item = {"jsonrpc": "2.0", "method": "test.step", "params": {"number": 0}, "id": 1}
    peer.send(json.dumps([item] * 51).encode() + b"\n")
    reply = await peer.receive()
    assert (reply["id"], reply["error"]["data"]) == (None, {"name": "too_large", "limit": 50})
    assert steps.begun == []
    steps.go(0)
    peer.send(json.dumps([item] * 50).encode() + b"\n")
    assert len(await peer.receive()) == 50
    assert steps.most == 1


# --- back-pressure ---------------------------------------------------------------------------------------


async def test_the_daemon_stops_reading_from_a_client_that_does_not_read(serving: Serving) -> None:
    """Its replies stay within the buffer limit, other clients are served, and later it gets all replies."""
    peer, other = await serving.peer(), await serving.peer()
    link = peer.writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    count = 400
    for _ in range(count):
        peer.send_request("rpc.discover")
    connection = await _blocked(serving)
    await wait_in_loop(
        lambda: not connection._can_write.is_set(), "the server is blocked by the back-pressure"
    )
    for _ in range(20):
        assert (await other.call("daemon.hello"))["ready"]
    buffered = connection._transport.get_write_buffer_size()
    assert buffered < serving.settings.limits.write_buffer_bytes * 2, buffered
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(count):
        assert "result" in await peer.receive()


async def _blocked(serving: Serving) -> Any:
    await wait_in_loop(
        lambda: any(not c._can_write.is_set() for c in serving.server.connections), "a connection is blocked"
    )
    return next(c for c in serving.server.connections if not c._can_write.is_set())


async def test_a_shim_that_does_not_read_is_disconnected(start: Start) -> None:
    """Above the buffer limit `notify` returns False without waiting, and the connection ends."""
    bound: list[Any] = []

    async def bind(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        bound.append(caller.connection)
        return {}

    row = Method("test.bind", NoParams, Role.ANY, "Nothing", "A method for tests.")
    serving = await start(extra={row: bind}, limits={"write_buffer_bytes": 65536})
    peer = await serving.peer()
    await peer.call("test.bind")
    closed: list[int] = []
    bound[0].on_close(lambda: closed.append(1))
    assert bound[0].notify("control.pause", {"mode": "freeze"})
    assert await peer.receive_notification() == {"mode": "freeze"}
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent = 0
    while bound[0].notify("control.stop", {"reason": "x" * 1000}):
        sent += 1
        assert sent < 10_000
    assert not bound[0].notify("control.resume", {})
    await wait_in_loop(lambda: closed == [1], "on_close is called")
    bound[0].on_close(lambda: closed.append(2))
    assert closed == [1, 2]


# --- the end -----------------------------------------------------------------------------------------------


async def test_a_client_may_close_its_sending_side_and_still_read(serving: Serving) -> None:
    """As with `printf ... | nc -N`, every request gets its reply, then the connection ends."""
    peer = await serving.peer()
    for _ in range(100):
        peer.send_request("daemon.hello")
    peer.writer.write_eof()
    for _ in range(100):
        assert (await peer.receive())["result"]["ready"]
    await peer.wait_until_closed()
    await wait_in_loop(lambda: not serving.server.connections, "the connection is removed")


async def test_a_disconnect_ends_streams_and_waits_of_the_client(serving: Serving) -> None:
    """After a disconnect, no stream, wait or follower of the client remains."""
    run = await serving.add()
    peer = await serving.peer()
    await peer.call("run.watch", {"since": 0})
    await peer.call("run.logs", {"run_id": run.run_id, "follow": True})
    peer.send_request("run.wait", {"run_id": run.run_id})
    await wait_in_loop(
        lambda: len(serving.broadcaster._followers.get(run.run_id, ())) == 2, "the run has two followers"
    )
    peer.writer.close()
    await wait_in_loop(
        lambda: (
            not serving.server.connections
            and not serving.broadcaster.watchers
            and not serving.broadcaster._followers
        ),
        "no connection, watcher or follower remains",
    )


async def test_an_orderly_stop_ends_requests_and_streams(start: Start) -> None:
    """Requests in flight get replies, waits the error `draining`, streams run.end with their cursor."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), timeouts={"shutdown_s": TIMEOUT_S})
    run = await serving.add()
    peer = await serving.peer()
    watch = await peer.call("run.watch")
    wait, step = (
        peer.send_request("run.wait", {"run_id": run.run_id}),
        peer.send_request("test.step", {"number": 1}),
    )
    await wait_in_loop(lambda: steps.begun, "the request has begun")
    closing = asyncio.get_running_loop().create_task(serving.server.close())
    received = {}
    for _ in range(2):
        message = await peer.receive()
        received[message.get("id", message.get("method"))] = message
    assert received["run.end"]["params"] == {
        "subscription": watch["subscription"],
        "reason": "draining",
        "cursor": 1,
    }
    assert received[wait]["error"]["data"]["name"] == "draining"
    steps.go(1)
    assert (await peer.reply(step))["result"] == {"number": 1}
    await peer.wait_until_closed()
    async with asyncio.timeout(TIMEOUT_S):
        await closing


async def test_a_stop_waits_for_slow_readers_within_its_time(start: Start) -> None:
    """A slow client receives its buffered replies; a client that never reads is disconnected."""
    serving = await start(timeouts={"shutdown_s": 1.0})
    peer, silent = await serving.peer(), await serving.peer()
    for client in (peer, silent):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(30):
            client.send_request("rpc.discover")
    await wait_in_loop(
        lambda: [c._can_write.is_set() for c in serving.server.connections] == [False, False],
        "both connections are blocked",
    )
    closing = asyncio.get_running_loop().create_task(serving.server.close())
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    count = 0
    while await peer.reader.readline():
        count += 1
    assert count >= 4
    async with asyncio.timeout(TIMEOUT_S):
        await closing


async def test_another_user_is_refused_with_the_reason(serving: Serving, monkeypatch: Any) -> None:
    """A user that the daemon does not serve gets one error and is disconnected."""
    monkeypatch.setattr("mosaicd.host.auth.peer_of", lambda connection: (1, 4242, 4242))
    peer = await serving.peer()
    peer.send_request("daemon.hello")
    error = (await peer.receive())["error"]
    assert (error["code"], error["data"]["uid"]) == (NotPermitted.code, 4242)
    assert "4242" in error["message"]
    await peer.wait_until_closed()
    assert not serving.server.connections


async def test_identity_comes_from_the_kernel(start: Start) -> None:
    """Uid, gid and pid of a caller are those of the connected process."""
    import os

    async def who(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        return {"who": [caller.uid, caller.gid, caller.pid], "is_admin": caller.is_admin}

    peer = await (
        await start(extra={Method("test.who", NoParams, Role.ANY, "Nothing", "A method for tests."): who})
    ).peer()
    assert await peer.call("test.who") == {"who": [os.getuid(), os.getgid(), os.getpid()], "is_admin": True}
