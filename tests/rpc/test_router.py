"""The router: roles, strict params, deadlines, and the mapping of errors."""

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
from tests.rpc.serving import TIMEOUT_S, Peer, Serving


@dataclass(frozen=True, slots=True)
class Anything:
    """Parameters for tests."""

    kind: str = ""


def method(name: str, params: type = Anything, role: Role = Role.ANY, **fields: Any) -> Method:
    return Method(name, params, role, "Nothing", "A method for tests.", **fields)


async def fail_as(services: Services, caller: Caller, params: Anything) -> dict[str, Any]:
    """Fail in the way that `kind` selects."""
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


FAILING = {method("test.fail_as"): fail_as}


@pytest.mark.parametrize("kind", ["", "timeout", "nan", "object", "surrogate"])
async def test_an_internal_error_is_logged_and_not_sent(
    kind: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets -32603 and a reference; the log has the traceback once; the daemon continues."""
    peer = await (await start(extra=FAILING)).peer()
    with caplog.at_level(logging.ERROR):
        error = await peer.call_refused("test.fail_as", {"kind": kind})
    assert error["code"] == -32603
    reference = error["data"]["reference"]
    assert reference in error["message"] and "secret" not in str(error) and "detail" not in str(error)
    (record,) = caplog.records
    assert reference in record.getMessage() and record.exc_info is not None
    assert (await peer.call("daemon.hello"))["ready"]


async def test_a_mosaic_error_has_code_message_and_data(start: Start) -> None:
    """The caller gets code, message and data of a MosaicError."""
    peer = await (await start(extra=FAILING)).peer()
    assert await peer.call_refused("test.fail_as", {"kind": "conflict"}) == {
        "code": -32003, "message": "Not in this state", "data": {"name": "conflict", "state": "TERM"},
    }  # fmt: skip


async def test_a_reply_above_the_limit_is_refused(start: Start) -> None:
    """No reply exceeds 1 MiB, alone or in a batch."""
    peer = await (await start(extra=FAILING)).peer()
    assert (await peer.call_refused("test.fail_as", {"kind": "large"}))["data"]["name"] == "too_large"
    item = '{"jsonrpc":"2.0","method":"test.fail_as","params":{"kind":"half"},"id":%d}'
    peer.send(f"[{','.join(item % number for number in range(3))}]\n".encode())
    replies = await peer.receive()
    assert [reply["id"] for reply in replies if "result" in reply] == [0, 1]
    assert replies[2]["error"]["data"]["name"] == "too_large"


async def test_a_request_has_a_deadline(start: Start) -> None:
    """If a handler exceeds its deadline, the caller gets `timed_out`."""
    serving = await start(extra=FAILING, timeouts={"request_s": 0.05})
    error = await (await serving.peer()).call_refused("test.fail_as", {"kind": "forever"})
    assert (error["code"], error["data"]["limit_s"]) == (-32009, 0.05)
    for task in list(serving.server.router._writing):
        task.cancel()


async def test_a_writing_request_finishes_after_a_disconnect(start: Start) -> None:
    """A handler that may write runs to its end although the client has disconnected."""
    go, done = asyncio.Event(), asyncio.Event()

    async def write(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        await go.wait()
        done.set()
        return {}

    serving = await start(extra={method("test.write", NoParams): write})
    peer = await serving.peer()
    peer.send_request("test.write")
    await wait_in_loop(lambda: serving.server.router._writing, "the request has begun")
    peer.disconnect()
    await wait_in_loop(lambda: not serving.server.connections, "the connection is removed")
    go.set()
    async with asyncio.timeout(TIMEOUT_S):
        await done.wait()


@pytest.mark.parametrize("given_up_by", ["disconnect", "deadline"])
async def test_an_internal_error_after_the_caller_gave_up_is_logged_with_its_method(
    given_up_by: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the method of a request that fails after a disconnect or after its deadline."""
    go = asyncio.Event()

    async def write(services: Services, caller: Caller, params: NoParams) -> dict[str, Any]:
        await go.wait()
        raise RuntimeError("a defect")

    timeouts = {"request_s": 0.05} if given_up_by == "deadline" else {}
    serving = await start(extra={method("test.write", NoParams): write}, timeouts=timeouts)
    peer = await serving.peer()
    request = peer.send_request("test.write")
    if given_up_by == "deadline":
        assert (await peer.reply(request))["error"]["data"]["name"] == "timed_out"
    else:
        await wait_in_loop(lambda: serving.server.router._writing, "the request has begun")
        peer.disconnect()
        await wait_in_loop(lambda: not serving.server.connections, "the connection is removed")
    with caplog.at_level(logging.ERROR):
        go.set()
        await wait_in_loop(lambda: caplog.records, "the error is logged")
    (record,) = caplog.records
    assert record.getMessage().startswith("request test.write failed because of an internal error")
    assert record.__dict__["mosaic_fields"]["method"] == "test.write"
    assert record.exc_info is not None


async def test_all_faults_of_the_params_are_reported(peer: Peer) -> None:
    """One error has all faults, each with its path and rule."""
    error = await peer.call_refused(
        "run.submit",
        {"gpus": "two", "labels": {"a": 1, "b": "x", "c": None}, "comand": ["x"], "dedup": "maybe", "hold": 1,
         "command": ["true", 3], "priority": 10**30, "cpus": 1.5},
    )  # fmt: skip
    assert error["code"] == -32602
    rules = {fault["path"]: fault["rule"] for fault in error["data"]["errors"]}
    expected = {
        "gpus": '"two"', "labels.a": "1", "labels.c": "null", "comand": "command",
        "dedup": "attach, new, fail", "hold": "1", "command[1]": "3", "priority": "64", "cpus": "1.5",
    }  # fmt: skip
    assert rules.keys() == expected.keys()
    assert all(word in rules[path] for path, word in expected.items())
    assert (await peer.call("run.list"))["runs"] == []


async def test_the_list_of_faults_is_bounded(peer: Peer) -> None:
    """The first faults are listed and the others counted, so the error stays small."""
    error = await peer.call_refused(
        "run.submit", {"labels": {f"k{number}": number for number in range(40_000)}}
    )
    assert len(error["data"]["errors"]) == MAX_FAULTS + 1 and "39999 more" in error["message"]
    assert error["data"]["errors"][-1] == {"path": "", "rule": f"and {40_000 - MAX_FAULTS} more faults"}
    error = await peer.call_refused("run.get", {"run_id": "x" * 600_000})
    assert error["data"] == {"name": "not_found"}


async def test_positional_params_are_refused(peer: Peer) -> None:
    """The error says that params must be an object."""
    error = (await peer.reply(peer.send_request("run.get", ["01"])))["error"]
    assert (error["code"], "object" in error["message"]) == (-32602, True)


async def test_missing_params_are_faults(peer: Peer) -> None:
    """Each absent required parameter is a fault with its path."""
    error = await peer.call_refused("worker.fact", {})
    assert [fault["path"] for fault in error["data"]["errors"]] == ["run_id", "session_token", "facts"]


async def test_an_unknown_method_gets_similar_names(peer: Peer) -> None:
    """The error -32601 has the most similar method names."""
    error = await peer.call_refused("run.sbmit")
    assert (error["code"], error["data"]["did_you_mean"][0]) == (-32601, "run.submit")


# --- authorisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
async def test_a_user_without_runs_may_call_only_methods_for_any_user(role: Role, start: Start) -> None:
    """A user that is no admin and does not own the run is refused by all other methods."""

    async def reached(services: Services, caller: Caller, params: Any) -> dict[str, Any]:
        return {"reached": True}

    serving = await start(extra={method("test.role", RunRef, role): reached})
    run = await serving.add(owner_uid=serving.auth._uid + 1)
    serving.auth.is_admin = lambda uid: False  # type: ignore[method-assign]
    peer = await serving.peer()
    reply = await peer.reply(peer.send_request("test.role", {"run_id": run.run_id}))
    if role is Role.ANY:
        assert reply["result"] == {"reached": True}
    else:
        expected = {Role.OWNER: "not_found", Role.ADMIN: "not_permitted", Role.SHIM: "unauthenticated"}
        assert reply["error"]["data"]["name"] == expected[role]


async def test_a_method_with_an_unknown_role_is_refused_for_every_caller(start: Start) -> None:
    """The default of authorisation is to refuse."""
    serving = await start(extra={method("test.fail_as", role="friends"): fail_as})  # type: ignore[arg-type]
    error = await (await serving.peer()).call_refused("test.fail_as")
    assert error["data"]["name"] == "not_permitted"


async def test_a_run_of_another_user_is_not_found(start: Start) -> None:
    """By id, prefix or name, in lists and watches, a run of another user is like a missing run."""
    serving = await start()
    run = await serving.add(owner_uid=serving.auth._uid + 1, name="theirs")
    serving.auth.is_admin = lambda uid: False  # type: ignore[method-assign]
    peer = await serving.peer()
    for reference in (run.run_id, run.run_id[:20], "theirs", run.run_id.lower()):
        assert (await peer.call_refused("run.get", {"run_id": reference}))["data"]["name"] == "not_found"
    assert (await peer.call("run.list"))["runs"] == []
    watch = await peer.call("run.watch", {"since": 0})
    own_run = await serving.add()
    assert (watch["runs"], (await peer.receive_notification("run.event"))["run_id"]) == ([], own_run.run_id)


async def test_a_run_is_found_by_id_prefix_and_name(serving: Serving, peer: Peer) -> None:
    """A reference is an id in any case, a unique prefix, or a name (newest run); else an error."""
    old = await serving.add(name="same")
    new = await serving.add(name="same")
    for reference, expected in [
        (old.run_id, old), (old.run_id.lower(), old), (new.run_id[:26], new), ("same", new),
    ]:  # fmt: skip
        assert (await peer.call("run.get", {"run_id": reference}))["run_id"] == expected.run_id
    assert (await peer.call_refused("run.get", {"run_id": old.run_id[:8]}))["data"]["name"] == "conflict"
    assert (await peer.call_refused("run.get", {"run_id": ""}))["data"]["name"] == "not_found"


@pytest.mark.parametrize("spoil", ["token", "other run's token", "old token", "ended"])
async def test_every_call_of_a_shim_needs_its_session_token(spoil: str, start: Start) -> None:
    """worker.fact needs the newest session token of a live run; otherwise nothing changes."""
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
    error = await peer.call_refused(
        "worker.fact", {"run_id": run.run_id, "session_token": token, "facts": [fact]}
    )
    assert error["data"]["name"] == ("not_found" if spoil == "ended" else "unauthenticated")
    assert serving.registry.last_seq == before


# --- the table -----------------------------------------------------------------------------------------


def test_every_method_has_a_handler() -> None:
    """Each row of METHODS has one handler, and each handler has a row."""
    assert handlers.load_handlers().keys() == METHODS.keys()
    assert METHODS.keys() >= handlers.READING


async def test_a_missing_or_invalid_handler_raises(serving: Serving) -> None:
    """A row without a handler, or a handler that is no coroutine function, raises ValueError."""
    table = handlers.load_handlers()
    del table["run.get"]
    with pytest.raises(ValueError, match=r"run\.get"):
        Router(serving.services, table)
    with pytest.raises(ValueError, match="not a coroutine"):
        Router(serving.services, {**table, "run.get": lambda services, caller, params: {}})  # type: ignore[dict-item, return-value]


async def test_during_reconcile_only_shims_hello_and_health_get_replies(start: Start) -> None:
    """worker.*, daemon.hello and daemon.health get replies; other requests wait for the end of reconcile."""
    serving = await start(is_open=False)
    peer, other = await serving.peer(), await serving.peer()
    waiting = peer.send_request("run.list")
    assert (await other.call("daemon.health"))["ready"] is False
    assert (await other.call("daemon.hello"))["ready"] is False
    error = await other.call_refused("worker.fact", {"run_id": "x", "session_token": "y", "facts": []})
    assert error["data"]["name"] == "not_found"
    serving.server.open()
    assert (await peer.reply(waiting))["result"]["runs"] == []


async def test_a_request_during_a_long_start_is_unavailable(start: Start) -> None:
    """A request whose deadline passes during the start gets `unavailable`, not `timed_out`."""
    serving = await start(is_open=False, timeouts={"request_s": 0.05})
    assert (await (await serving.peer()).call_refused("run.list"))["data"]["name"] == "unavailable"
