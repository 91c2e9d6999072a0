"""One connection: order, limits, back-pressure, batches, and an end that leaves nothing."""

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
from tests.rpc.serving import PATIENCE_S, Peer, Serving


@dataclass(frozen=True, slots=True)
class Numbered:
    """Parameters for tests."""

    number: int = 0


class Steps:
    """Methods that wait until they are told to go on, and say what they did."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0
        self._go: dict[int, asyncio.Event] = {}

    def go(self, number: int) -> None:
        self._go.setdefault(number, asyncio.Event()).set()

    def extra(self, *names: str) -> dict[Method, Any]:
        return {
            Method(name, Numbered, Role.ANY, "Nothing", "A test's.", deadline_s=None): self.handle
            for name in names
        }

    async def handle(self, services: Services, caller: Caller, params: Numbered) -> dict[str, Any]:
        self.begun.append(params.number)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        await self._go.setdefault(params.number, asyncio.Event()).wait()
        self.ended.append(params.number)
        return {"number": params.number}


async def test_replies_come_in_the_order_of_completion(start: Start) -> None:
    """A slow request does not keep a later one waiting."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("test.step"))).peer()
    slow, quick = peer.ask("test.step", {"number": 1}), peer.ask("test.step", {"number": 2})
    steps.go(2)
    assert (await peer.line())["id"] == quick
    steps.go(1)
    assert (await peer.line())["id"] == slow


async def test_what_a_shim_says_is_heard_in_order(start: Start) -> None:
    """worker.* of one connection is worked on one after the other, notifications too; others overtake."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("worker.step", "test.step"))).peer()
    first = peer.ask("worker.step", {"number": 1})
    peer.say(b'{"jsonrpc":"2.0","method":"worker.step","params":{"number":2}}\n')
    peer.say(b'[{"jsonrpc":"2.0","method":"worker.step","params":{"number":3},"id":"in a batch"}]\n')
    last, other = peer.ask("worker.step", {"number": 4}), peer.ask("test.step", {"number": 5})
    for number in (5, 4, 3, 2):
        steps.go(number)
    assert (await peer.line())["id"] == other
    assert sorted(steps.begun) == [1, 5]
    steps.go(1)
    assert [await peer.line() for _ in range(3)] == [
        {"jsonrpc": "2.0", "result": {"number": 1}, "id": first},
        [{"jsonrpc": "2.0", "result": {"number": 3}, "id": "in a batch"}],
        {"jsonrpc": "2.0", "result": {"number": 4}, "id": last},
    ]
    assert [number for number in steps.ended if number != 5] == [1, 2, 3, 4]


async def test_no_more_than_the_cap_is_in_flight(start: Start) -> None:
    """Above the cap nothing more is read; it goes on as answers leave."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), limits={"in_flight": 4})
    peer, other = await serving.peer(), await serving.peer()
    for number in range(50):
        peer.ask("test.step", {"number": number})
    await wait_in_loop(lambda: len(steps.begun) == 4, "the first four are begun")
    assert (await other.call("daemon.hello"))["ready"]
    assert len(steps.begun) == 4
    for number in range(50):
        steps.go(number)
    replies = [await peer.line() for _ in range(50)]
    assert sorted(reply["result"]["number"] for reply in replies) == list(range(50))
    assert steps.most <= 4


# --- batches ---------------------------------------------------------------------------------------------


async def test_a_batch_is_answered_item_by_item_in_order(peer: Peer) -> None:
    """Each item gets its own reply or error, broken ones too; notifications get none."""
    peer.say(
        b'[{"jsonrpc":"2.0","method":"daemon.hello","id":1},1,{"jsonrpc":"2.0","method":"daemon.hello"},'
        b'{"jsonrpc":"2.0","method":"nope","id":2},{"id":3}]\n'
    )
    replies = await peer.line()
    assert [(reply["id"], reply.get("error", {}).get("code")) for reply in replies] == [
        (1, None), (None, -32600), (2, -32601), (3, -32600),
    ]  # fmt: skip


async def test_a_batch_of_notifications_is_not_answered(peer: Peer) -> None:
    """Nothing comes back, and the connection goes on."""
    peer.say(b'[{"jsonrpc":"2.0","method":"daemon.hello"}]\n')
    assert (await peer.call("daemon.hello"))["ready"]


async def test_a_large_batch_is_refused_before_any_of_it_runs(start: Start) -> None:
    """51 items are one error; 50 are served."""
    steps = Steps()
    peer = await (await start(extra=steps.extra("test.step"))).peer()
    item = {"jsonrpc": "2.0", "method": "test.step", "params": {"number": 0}, "id": 1}
    peer.say(json.dumps([item] * 51).encode() + b"\n")
    reply = await peer.line()
    assert (reply["id"], reply["error"]["data"]) == (None, {"name": "too_large", "limit": 50})
    assert steps.begun == []
    steps.go(0)
    peer.say(json.dumps([item] * 50).encode() + b"\n")
    assert len(await peer.line()) == 50
    assert steps.most == 1


# --- back-pressure ---------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_not_read(serving: Serving) -> None:
    """Its answers stay within the buffer's limit, and others are served meanwhile; then it gets them all."""
    peer, other = await serving.peer(), await serving.peer()
    link = peer.writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    count = 400
    for _ in range(count):
        peer.ask("rpc.discover")
    connection = await _blocked(serving)
    await wait_in_loop(lambda: not connection._can_write.is_set(), "the server feels the back-pressure")
    for _ in range(20):
        assert (await other.call("daemon.hello"))["ready"]
    held = connection._transport.get_write_buffer_size()
    assert held < serving.settings.limits.write_buffer_bytes * 2, held
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(count):
        assert "result" in await peer.line()


async def _blocked(serving: Serving) -> Any:
    await wait_in_loop(
        lambda: any(not c._can_write.is_set() for c in serving.server.connections), "a client is held back"
    )
    return next(c for c in serving.server.connections if not c._can_write.is_set())


async def test_a_shim_that_does_not_read_its_orders_is_cut_off(start: Start) -> None:
    """`notify` never waits: above the buffer's limit it says no, and the connection ends."""
    bound: list[Any] = []

    async def bind(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        bound.append(caller.connection)
        return {}

    row = Method("test.bind", NoParams, Role.ANY, "Nothing", "A test's.")
    serving = await start(extra={row: bind}, limits={"write_buffer_bytes": 65536})
    peer = await serving.peer()
    await peer.call("test.bind")
    closed: list[int] = []
    bound[0].on_close(lambda: closed.append(1))
    assert bound[0].notify("control.pause", {"mode": "freeze"})
    assert await peer.note() == {"mode": "freeze"}
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent = 0
    while bound[0].notify("control.stop", {"reason": "x" * 1000}):
        sent += 1
        assert sent < 10_000
    assert not bound[0].notify("control.resume", {})
    await wait_in_loop(lambda: closed == [1], "its end is reported")
    bound[0].on_close(lambda: closed.append(2))
    assert closed == [1, 2]


# --- the end -----------------------------------------------------------------------------------------------


async def test_a_client_may_shut_its_sending_side_and_read_on(serving: Serving) -> None:
    """`printf ... | nc -N`: everything that was asked is answered, then the connection ends."""
    peer = await serving.peer()
    for _ in range(100):
        peer.ask("daemon.hello")
    peer.writer.write_eof()
    for _ in range(100):
        assert (await peer.line())["result"]["ready"]
    assert await peer.is_gone()
    await wait_in_loop(lambda: not serving.server.connections, "the connection goes")


async def test_a_hang_up_ends_what_waits_for_the_client(serving: Serving) -> None:
    """Streams and waits of a client that is gone end; nothing of it is left."""
    run = await serving.add()
    peer = await serving.peer()
    await peer.call("run.watch", {"since": 0})
    await peer.call("run.logs", {"run_id": run.run_id, "follow": True})
    peer.ask("run.wait", {"run_id": run.run_id})
    await wait_in_loop(lambda: len(serving.broadcaster._followers.get(run.run_id, ())) == 2, "both follow")
    peer.writer.close()
    await wait_in_loop(
        lambda: (
            not serving.server.connections
            and not serving.broadcaster.watchers
            and not serving.broadcaster._followers
        ),
        "nothing of the client is left",
    )


async def test_an_orderly_stop_answers_and_says_goodbye(start: Start) -> None:
    """Requests in flight are answered, waits told, streams ended with their cursor; then it hangs up."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), timeouts={"shutdown_s": PATIENCE_S})
    run = await serving.add()
    peer = await serving.peer()
    watch = await peer.call("run.watch")
    wait, step = peer.ask("run.wait", {"run_id": run.run_id}), peer.ask("test.step", {"number": 1})
    await wait_in_loop(lambda: steps.begun, "the request is begun")
    closing = asyncio.get_running_loop().create_task(serving.server.close())
    heard = {}
    for _ in range(2):
        message = await peer.line()
        heard[message.get("id", message.get("method"))] = message
    assert heard["run.end"]["params"] == {
        "subscription": watch["subscription"],
        "reason": "draining",
        "cursor": 1,
    }
    assert heard[wait]["error"]["data"]["name"] == "draining"
    steps.go(1)
    assert (await peer.reply(step))["result"] == {"number": 1}
    assert await peer.is_gone()
    async with asyncio.timeout(PATIENCE_S):
        await closing


async def test_a_stop_lets_slow_readers_have_their_answers(start: Start) -> None:
    """Data in the buffer at the stop still arrives; a client that never reads is disconnected in the end."""
    serving = await start(timeouts={"shutdown_s": 1.0})
    peer, deaf = await serving.peer(), await serving.peer()
    for client in (peer, deaf):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(30):
            client.ask("rpc.discover")
    await wait_in_loop(
        lambda: [c._can_write.is_set() for c in serving.server.connections] == [False, False],
        "both are held back",
    )
    closing = asyncio.get_running_loop().create_task(serving.server.close())
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    count = 0
    while await peer.reader.readline():
        count += 1
    assert count >= 4
    async with asyncio.timeout(PATIENCE_S):
        await closing


async def test_another_user_is_refused_with_a_reason(serving: Serving, monkeypatch: Any) -> None:
    """Whom this daemon does not serve is told so in one line, and is gone."""
    monkeypatch.setattr("mosaicd.host.auth.peer_of", lambda connection: (1, 4242, 4242))
    peer = await serving.peer()
    peer.ask("daemon.hello")
    error = (await peer.line())["error"]
    assert (error["code"], error["data"]["uid"]) == (NotPermitted.code, 4242)
    assert "4242" in error["message"]
    assert await peer.is_gone()
    assert not serving.server.connections


async def test_identity_comes_from_the_kernel(start: Start) -> None:
    """Uid, gid and pid of a caller are those of the process that connected."""
    import os

    async def who(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        return {"who": [caller.uid, caller.gid, caller.pid], "is_admin": caller.is_admin}

    peer = await (
        await start(extra={Method("test.who", NoParams, Role.ANY, "Nothing", "A test's."): who})
    ).peer()
    assert await peer.call("test.who") == {"who": [os.getuid(), os.getgid(), os.getpid()], "is_admin": True}
