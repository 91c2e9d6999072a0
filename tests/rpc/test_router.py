"""The router: roles, strict params, deadlines, and every error in its place."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest

from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.faults import MAX_FAULTS
from mosaicd.protocol.messages import NoParams, RunRef
from mosaicd.protocol.methods import METHODS, Method, Role
from mosaicd.rpc import handlers
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.router import Router
from tests.harness.waiting import wait_in_loop
from tests.rpc.conftest import Start
from tests.rpc.serving import PATIENCE_S, Peer, Serving


@dataclass(frozen=True, slots=True)
class Anything:
    """Parameters for tests."""

    kind: str = ""


def method(name: str, params: type = Anything, role: Role = Role.ANY, **fields: Any) -> Method:
    return Method(name, params, role, "Nothing", "A test's.", **fields)


async def odd(services: Services, caller: Caller, params: Anything) -> dict[str, Any]:
    """Goes wrong in the way it is told to."""
    match params.kind:
        case "nan":
            return {"value": float("nan")}
        case "object":
            return {"value": object()}
        case "surrogate":
            return {"value": "\ud800"}
        case "large":
            return {"value": "x" * (1 << 20)}
        case "half":
            return {"value": "x" * (400 << 10)}
        case "conflict":
            raise Conflict("Not in this state", state="TERM")
        case "timeout":
            raise TimeoutError("a detail of the daemon")
        case "forever":
            await asyncio.Event().wait()
    raise RuntimeError("the secret is 42")


ODD = {method("test.odd"): odd}


@pytest.mark.parametrize("kind", ["", "timeout", "nan", "object", "surrogate"])
async def test_a_mistake_of_ours_is_logged_and_not_told(
    kind: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets -32603 and a reference, the log the traceback under it, once; the daemon lives."""
    peer = await (await start(extra=ODD)).peer()
    with caplog.at_level(logging.ERROR):
        error = await peer.refused("test.odd", {"kind": kind})
    assert error["code"] == -32603
    reference = error["data"]["reference"]
    assert reference in error["message"] and "secret" not in str(error) and "detail" not in str(error)
    (record,) = caplog.records
    assert reference in record.getMessage() and record.exc_info is not None
    assert (await peer.call("daemon.hello"))["ready"]


async def test_an_error_of_the_callers_carries_its_data(start: Start) -> None:
    """A MosaicError arrives with its code, its message and its data."""
    peer = await (await start(extra=ODD)).peer()
    assert await peer.refused("test.odd", {"kind": "conflict"}) == {
        "code": -32003, "message": "Not in this state", "data": {"name": "conflict", "state": "TERM"},
    }  # fmt: skip


async def test_a_reply_above_the_limit_is_refused(start: Start) -> None:
    """No reply passes 1 MiB, alone or in a batch."""
    peer = await (await start(extra=ODD)).peer()
    assert (await peer.refused("test.odd", {"kind": "large"}))["data"]["name"] == "too_large"
    item = '{"jsonrpc":"2.0","method":"test.odd","params":{"kind":"half"},"id":%d}'
    peer.say(f"[{','.join(item % number for number in range(3))}]\n".encode())
    replies = await peer.line()
    assert [reply["id"] for reply in replies if "result" in reply] == [0, 1]
    assert replies[2]["error"]["data"]["name"] == "too_large"


async def test_a_request_has_a_deadline(start: Start) -> None:
    """A handler that does not come back is given up, and the caller told."""
    serving = await start(extra=ODD, timeouts={"request_s": 0.05})
    error = await (await serving.peer()).refused("test.odd", {"kind": "forever"})
    assert (error["code"], error["data"]["limit_s"]) == (-32009, 0.05)
    for task in list(serving.server.router._writing):
        task.cancel()


async def test_what_writes_goes_on_when_the_caller_leaves(start: Start) -> None:
    """A request that changes something is finished, although its client hung up or its time passed."""
    go, done = asyncio.Event(), asyncio.Event()

    async def write(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        await go.wait()
        done.set()
        return {}

    serving = await start(extra={method("test.write", NoParams): write})
    peer = await serving.peer()
    peer.ask("test.write")
    await wait_in_loop(lambda: serving.server.router._writing, "the request is begun")
    peer.hang_up()
    await wait_in_loop(lambda: not serving.server.connections, "the connection goes")
    go.set()
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()


async def test_every_fault_of_the_params_is_told(peer: Peer) -> None:
    """All faults at once, each with its path and its rule."""
    error = await peer.refused(
        "run.submit",
        {"gpus": "two", "labels": {"a": 1, "b": "x", "c": None}, "comand": ["x"], "dedup": "maybe", "hold": 1,
         "command": ["true", 3], "priority": 10**30, "cpus": 1.5},
    )  # fmt: skip
    assert error["code"] == -32602
    rules = {fault["path"]: fault["rule"] for fault in error["data"]["errors"]}
    named = {
        "gpus": '"two"', "labels.a": "1", "labels.c": "null", "comand": "command",
        "dedup": "attach, new, fail", "hold": "1", "command[1]": "3", "priority": "64", "cpus": "1.5",
    }  # fmt: skip
    assert rules.keys() == named.keys()
    assert all(word in rules[path] for path, word in named.items())
    assert (await peer.call("run.list"))["runs"] == []


async def test_a_flood_of_faults_is_counted(peer: Peer) -> None:
    """Two hundred faults are listed, the rest counted: the refusal itself stays small."""
    error = await peer.refused("run.submit", {"labels": {f"k{number}": number for number in range(40_000)}})
    assert len(error["data"]["errors"]) == MAX_FAULTS + 1 and "39999 more" in error["message"]
    assert error["data"]["errors"][-1] == {"path": "", "rule": f"and {40_000 - MAX_FAULTS} more faults"}
    error = await peer.refused("run.get", {"run_id": "x" * 600_000})
    assert error["data"] == {"name": "not_found"}


async def test_listed_params_are_refused(peer: Peer) -> None:
    """Positional params get an error that says what to do."""
    error = (await peer.reply(peer.ask("run.get", ["01"])))["error"]
    assert (error["code"], "object" in error["message"]) == (-32602, True)


async def test_missing_params_are_named(peer: Peer) -> None:
    """A required parameter that is absent is a fault with its path."""
    error = await peer.refused("worker.fact", {})
    assert [fault["path"] for fault in error["data"]["errors"]] == ["run_id", "session_token", "facts"]


async def test_an_unknown_method_is_answered_with_what_was_meant(peer: Peer) -> None:
    """-32601, with near names."""
    error = await peer.refused("run.sbmit")
    assert (error["code"], error["data"]["did_you_mean"][0]) == (-32601, "run.submit")


# --- who may -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
async def test_a_stranger_is_not_let_in(role: Role, start: Start) -> None:
    """A user who is no admin and owns no run may call the methods for any user, and no others."""

    async def reached(services: Services, caller: Caller, params: Any) -> dict[str, Any]:
        return {"reached": True}

    serving = await start(extra={method("test.role", RunRef, role): reached})
    run = await serving.add(owner_uid=serving.auth._uid + 1)
    serving.auth.is_admin = lambda uid: False  # type: ignore[method-assign]
    peer = await serving.peer()
    reply = await peer.reply(peer.ask("test.role", {"run_id": run.run_id}))
    if role is Role.ANY:
        assert reply["result"] == {"reached": True}
    else:
        expected = {Role.OWNER: "not_found", Role.ADMIN: "not_permitted", Role.SHIM: "unauthenticated"}
        assert reply["error"]["data"]["name"] == expected[role]


async def test_a_role_that_is_no_role_lets_nobody_in(start: Start) -> None:
    """Default deny: a method with an unknown role is refused for every caller."""
    serving = await start(extra={method("test.odd", role="friends"): odd})  # type: ignore[arg-type]
    error = await (await serving.peer()).refused("test.odd")
    assert error["data"]["name"] == "not_permitted"


async def test_another_users_run_is_not_there(start: Start) -> None:
    """By id, prefix or name: another user's run is answered exactly as a missing one."""
    serving = await start()
    run = await serving.add(owner_uid=serving.auth._uid + 1, name="theirs")
    serving.auth.is_admin = lambda uid: False  # type: ignore[method-assign]
    peer = await serving.peer()
    for reference in (run.run_id, run.run_id[:20], "theirs", run.run_id.lower()):
        assert (await peer.refused("run.get", {"run_id": reference}))["data"]["name"] == "not_found"
    assert (await peer.call("run.list"))["runs"] == []
    watch = await peer.call("run.watch", {"since": 0})
    own = await serving.add()
    assert (watch["runs"], (await peer.note("run.event"))["run_id"]) == ([], own.run_id)


async def test_a_run_is_found_by_id_prefix_and_name(serving: Serving, peer: Peer) -> None:
    """Full id in either case, unique beginning, newest of a name; ambiguous ones are told apart."""
    old = await serving.add(name="same")
    new = await serving.add(name="same")
    for reference, expected in [
        (old.run_id, old), (old.run_id.lower(), old), (new.run_id[:26], new), ("same", new),
    ]:  # fmt: skip
        assert (await peer.call("run.get", {"run_id": reference}))["run_id"] == expected.run_id
    assert (await peer.refused("run.get", {"run_id": old.run_id[:8]}))["data"]["name"] == "conflict"
    assert (await peer.refused("run.get", {"run_id": ""}))["data"]["name"] == "not_found"


@pytest.mark.parametrize("spoil", ["token", "other run's token", "old token", "ended"])
async def test_a_shim_proves_itself_with_every_call(spoil: str, start: Start) -> None:
    """worker.fact needs the newest session token of a live run; anything else changes nothing."""
    serving = await start()
    run, other = await serving.add(), await serving.add()
    await serving.execute(run)
    await serving.execute(other)
    first, theirs = serving.auth.issue_token(run.run_id), serving.auth.issue_token(other.run_id)
    token = {"token": "0" * 32, "other run's token": theirs}.get(spoil, first)
    if spoil == "old token":
        serving.auth.issue_token(run.run_id)
    if spoil == "ended":
        await serving.end(run)
    before = serving.registry.last_seq
    peer = await serving.peer()
    fact = {"fact": "exited", "at": 1.0, "exit_code": 3}
    error = await peer.refused("worker.fact", {"run_id": run.run_id, "session_token": token, "facts": [fact]})
    assert error["data"]["name"] == ("not_found" if spoil == "ended" else "unauthenticated")
    assert serving.registry.last_seq == before


# --- the table -----------------------------------------------------------------------------------------


def test_every_method_has_a_handler() -> None:
    """methods = handlers: one coroutine function for each row, and no handler without a row."""
    assert handlers.load().keys() == METHODS.keys()
    assert METHODS.keys() >= handlers.READING


async def test_a_router_without_a_handler_is_not_made(serving: Serving) -> None:
    """A row without a handler, or a handler that is no coroutine function, stops the start."""
    table = handlers.load()
    del table["run.get"]
    with pytest.raises(ValueError, match=r"run\.get"):
        Router(serving.services, table)
    with pytest.raises(ValueError, match="not a coroutine"):
        Router(serving.services, {**table, "run.get": lambda services, caller, params: {}})  # type: ignore[dict-item, return-value]


async def test_before_reconcile_ends_only_shims_and_the_curious_are_answered(start: Start) -> None:
    """worker.*, daemon.hello and daemon.health are answered at once; the others when it is over."""
    serving = await start(is_open=False)
    peer, other = await serving.peer(), await serving.peer()
    waiting = peer.ask("run.list")
    assert (await other.call("daemon.health"))["ready"] is False
    assert (await other.call("daemon.hello"))["ready"] is False
    error = await other.refused("worker.fact", {"run_id": "x", "session_token": "y", "facts": []})
    assert error["data"]["name"] == "not_found"
    serving.server.open()
    assert (await peer.reply(waiting))["result"]["runs"] == []


async def test_a_start_that_takes_long_is_told(start: Start) -> None:
    """A request that waited for the start in vain gets `unavailable`, not `timed_out`."""
    serving = await start(is_open=False, timeouts={"request_s": 0.05})
    assert (await (await serving.peer()).refused("run.list"))["data"]["name"] == "unavailable"
