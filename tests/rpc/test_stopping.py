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
from tests.rpc.serving import PATIENCE_S, Serving
from tests.rpc.test_connection import Steps


async def test_who_waits_for_the_start_is_told_of_a_stop(start: Start) -> None:
    """A daemon that is stopped while it starts answers waiting clients, and does not wait itself."""
    serving = await start(is_open=False, timeouts={"shutdown_s": 10 * PATIENCE_S})
    peer = await serving.peer()
    asked = [peer.ask("run.list"), peer.ask("run.wait", {"run_id": "x"}), peer.ask("run.submit", {})]
    await wait_in_loop(
        lambda: [len(c._tasks) for c in serving.server.connections] == [len(asked)], "all wait"
    )
    async with asyncio.timeout(PATIENCE_S):
        await serving.server.close()
    answers = {
        message["id"]: message["error"]["data"]["name"] for message in [await peer.line() for _ in asked]
    }
    assert answers == dict.fromkeys(asked, "draining")


async def test_who_asks_for_workers_is_told_of_a_stop(start: Start, tmp_path: Path, monkeypatch: Any) -> None:
    """A stop does not wait for a running discovery; clients that wait for it get an error."""
    silent = tmp_path / "python"
    silent.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 60\n")
    silent.chmod(silent.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(silent))
    serving = await start()
    peer, late = await serving.peer(), await serving.peer()
    config = {"metadata": {"worker": {"module": "x"}}}
    asked = [peer.ask("worker.list"), peer.ask("run.submit", {"config": config})]
    await wait_in_loop((tmp_path / "asked").exists, "the interpreter is asked")
    await serving.services.discovery.close()
    answers = {
        message["id"]: message["error"]["data"]["name"] for message in [await peer.line() for _ in asked]
    }
    assert answers == dict.fromkeys(asked, "draining")
    (tmp_path / "asked").unlink()
    assert (await late.refused("worker.list"))["data"]["name"] == "draining"
    assert not (tmp_path / "asked").exists(), "no interpreter is started any more"


async def test_many_answers_to_one_who_has_gone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """What becomes ready in one moment for a peer that is not there is one loss, and no line of the log."""
    steps = Steps()
    serving = await start(extra=steps.extra("test.step"), limits={"in_flight": 20})
    peer = await serving.peer()
    for _ in range(
        25
    ):  # more than the daemon handles at a time, so it stops reading and cannot see the disconnect
        peer.ask("test.step", {"number": 1})
    await wait_in_loop(lambda: len(steps.begun) == 20, "all that may be are begun")
    peer.hang_up()
    await wait_in_loop(lambda: peer.writer.transport.is_closing(), "it hangs up")
    await asyncio.sleep(0)
    assert serving.server.connections
    steps.go(1)
    await wait_in_loop(lambda: not serving.server.connections, "it is seen to have gone")
    assert not caplog.records


async def test_a_read_after_the_end_is_refused_in_words(serving: Serving) -> None:
    """A request that outlasts the stop's patience finds a closed history: no mistake of the daemon's."""
    await serving.history.close()
    error = await (await serving.peer()).refused("run.list")
    assert error["data"]["name"] == "unavailable"


async def test_who_was_told_to_stop_is_not_replaced(serving: Serving, monkeypatch: Any) -> None:
    """A signal is the last word: also over a reexec whose look at the new program takes longer."""
    ends: list[str] = []
    succession = serving.services.succession = Succession(False, on_asked=lambda: ends.append("reexec"))
    looking, seen = asyncio.Event(), asyncio.Event()

    async def check(*_: Any, **__: Any) -> str:
        looking.set()
        await seen.wait()
        return "2"

    monkeypatch.setattr(reexec, "check", check)
    no_caller: Any = None
    asked = asyncio.ensure_future(handler.handle(serving.services, no_caller, NoParams()))
    await looking.wait()
    assert not succession.refuse()
    seen.set()
    with pytest.raises(Conflict):
        await asked
    succession.begin()  # was on its way already
    assert not succession.is_asked and ends == []


async def test_two_who_want_a_reexec_get_one() -> None:
    """The second is told the same as the first, and nothing ends twice."""
    ends: list[str] = []
    succession = Succession(False, on_asked=lambda: ends.append("reexec"))
    succession.begin()
    succession.begin()
    assert ends == ["reexec"] and succession.is_asked
    assert succession.refuse() and not succession.is_asked
