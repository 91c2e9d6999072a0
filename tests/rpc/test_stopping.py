"""A stop during requests: every waiting client is answered, and no error is logged."""

import asyncio
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from mosaicd.host import reexec
from mosaicd.host.reexec import Succession
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import NoParams
from mosaicd.rpc.verbs import reexec as handler
from tests.harness.waiting import wait_in_loop
from tests.rpc.conftest import Start
from tests.rpc.serving import TIMEOUT_S, Serving
from tests.rpc.test_connection import Steps


async def test_a_stop_during_the_start_ends_waiting_requests(start: Start) -> None:
    """If the daemon is stopped while it starts, waiting requests get `draining` immediately."""
    serving = await start(is_open=False, timeouts={"shutdown_s": 10 * TIMEOUT_S})
    peer = await serving.peer()
    request_ids = [
        peer.send_request("run.list"),
        peer.send_request("run.wait", {"run_id": "x"}),
        peer.send_request("run.submit", {}),
    ]
    await wait_in_loop(
        lambda: [len(c._tasks) for c in serving.server.connections] == [len(request_ids)], "all requests wait"
    )
    async with asyncio.timeout(TIMEOUT_S):
        await serving.server.close()
    answers = {
        message["id"]: message["error"]["data"]["name"]
        for message in [await peer.receive() for _ in request_ids]
    }
    assert answers == dict.fromkeys(request_ids, "draining")


async def test_a_stop_ends_requests_that_wait_for_discovery(
    start: Start, tmp_path: Path, monkeypatch: Any
) -> None:
    """A stop does not wait for a running discovery; requests that wait for it get `draining`."""
    silent = tmp_path / "python"
    silent.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    silent.chmod(silent.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(silent))
    serving = await start()
    peer, late = await serving.peer(), await serving.peer()
    config = {"metadata": {"worker": {"module": "x"}}}
    request_ids = [peer.send_request("worker.list"), peer.send_request("run.submit", {"config": config})]
    await wait_in_loop((tmp_path / "started").exists, "the interpreter is started")
    await serving.services.discovery.close()
    answers = {
        message["id"]: message["error"]["data"]["name"]
        for message in [await peer.receive() for _ in request_ids]
    }
    assert answers == dict.fromkeys(request_ids, "draining")
    (tmp_path / "started").unlink()
    assert (await late.call_refused("worker.list"))["data"]["name"] == "draining"
    assert not (tmp_path / "started").exists(), "no interpreter is started after the stop"


async def test_many_replies_to_a_disconnected_client_are_not_logged(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """If many replies become ready for a disconnected client, its connection ends without a log record."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), limits={"in_flight": 20})
    peer = await serving.peer()
    for _ in range(25):  # above the limit, so the daemon does not read and does not see the disconnect
        peer.send_request("test.step", {"number": 1})
    await wait_in_loop(lambda: len(steps.begun) == 20, "as many requests as allowed have begun")
    peer.disconnect()
    await wait_in_loop(lambda: peer.writer.transport.is_closing(), "the client closes")
    await asyncio.sleep(0)
    assert serving.server.connections
    steps.go(1)
    await wait_in_loop(lambda: not serving.server.connections, "the connection is removed")
    assert not caplog.records


async def test_a_request_after_the_history_is_closed_is_unavailable(serving: Serving) -> None:
    """A request that outlasts the time of the stop gets `unavailable`, not an internal error."""
    await serving.history.close()
    error = await (await serving.peer()).call_refused("run.list")
    assert error["data"]["name"] == "unavailable"


async def test_a_stop_wins_over_a_reexec(serving: Serving, monkeypatch: Any) -> None:
    """A signal during the check of the new program prevents the re-exec."""
    ends: list[str] = []
    succession = serving.services.succession = Succession(False, on_asked=lambda: ends.append("reexec"))
    is_checking, may_finish = asyncio.Event(), asyncio.Event()

    async def check(*_: Any, **__: Any) -> str:
        is_checking.set()
        await may_finish.wait()
        return "2"

    monkeypatch.setattr(reexec, "check", check)
    no_caller: Any = None
    reexec_request = asyncio.ensure_future(handler.handle(serving.services, no_caller, NoParams()))
    await is_checking.wait()
    assert not succession.forbid()
    may_finish.set()
    with pytest.raises(Conflict):
        await reexec_request
    succession.begin()  # a second re-exec request arrives late
    assert not succession.is_asked and ends == []


async def test_two_reexec_requests_cause_one_reexec() -> None:
    """A second request does not begin a second stop."""
    ends: list[str] = []
    succession = Succession(False, on_asked=lambda: ends.append("reexec"))
    succession.begin()
    succession.begin()
    assert ends == ["reexec"] and succession.is_asked
    assert succession.forbid() and not succession.is_asked
