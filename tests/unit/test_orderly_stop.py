"""An orderly stop of the daemon: during a re-exec, during a request, and during the daemon's start."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mosaicd import __main__ as main
from mosaicd import service
from mosaicd.clock import Clock
from mosaicd.config import Paths, Settings
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.host.background import background
from mosaicd.host.reexec import Succession, Takeover, replace
from mosaicd.log import Catalogue
from mosaicd.protocol.states import Dedup
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.shims.shims import Shims
from mosaicd.store.registry import Registry
from tests.harness.trouble import entries
from tests.harness.waiting import wait_in_loop
from tests.store.building import new_run, submission

unused: Any = None


@pytest.mark.usefixtures("default_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_during_a_reexec_lets_the_stop_finish(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a signal during a re-exec, the orderly stop finishes and the daemon exits."""
    succession, done = Succession(False), []

    async def serves(*_: Any) -> int:
        asked = asyncio.get_running_loop().create_future()
        succession.on_asked = lambda: asked.set_result(None)
        succession.begin()
        await asked
        os.kill(os.getpid(), number)
        await wait_in_loop(
            lambda: not succession.is_asked, "the signal arrives while requests in flight are answered"
        )
        for part in ("streams are closed", "the registry is closed"):
            await asyncio.sleep(0)
            done.append(part)
        return 0

    monkeypatch.setattr(service, "run", serves)
    async with asyncio.timeout(20):
        assert await main._until_signal(unused, unused, unused, succession) == 0
    assert done == ["streams are closed", "the registry is closed"] and not succession.is_asked


def test_a_reexec_works_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was started with a closed stdout has nothing to flush."""
    executed = []
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(os, "execv", lambda path, argv: executed.append(path))
    replace(Takeover(os.getpid(), "", "", 0, (), is_passed=False), {})
    assert executed


async def test_a_signal_ends_a_daemon_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reexec request, a signal stops the daemon."""

    async def serves(*_: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        return 1

    monkeypatch.setattr(service, "run", serves)
    async with asyncio.timeout(20):
        assert await main._until_signal(unused, unused, unused, Succession(False)) == 0


class Bench:
    """A registry and a dispatcher, without a launcher."""

    def __init__(self, home: Path, registry: Registry) -> None:
        settings = Settings(paths=Paths(home / "state", home / "s"))
        rundirs = RunDirs(home / "runs")
        self.launcher = LauncherClient()
        self.shims = Shims(self.launcher, on_ended=unused)
        self.fatal: list[BaseException] = []
        order_builder = OrderBuilder(rundirs, unused, settings, home / "s")
        clock = Clock()
        self.dispatcher = Dispatcher(
            registry,
            Scheduler(registry, settings, clock),
            self.launcher,
            self.shims,
            rundirs,
            order_builder,
            settings,
            clock,
            self.fatal.append,
        )


async def held(registry: Registry) -> Run:
    run, _ = await registry.add(submission(new_run(held=True)), dedup=Dedup.NEW)
    return run


async def test_an_event_during_the_stop_starts_no_action(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A request during the stop is recorded; the next daemon carries it out, because the registry closes."""
    registry = await Registry.open(tmp_path / "registry.sqlite3")
    bench = Bench(tmp_path, registry)
    run, other = await held(registry), await held(registry)
    bench.dispatcher.start()
    await registry.record(other.run_id, Event(Kind.STOP_REQUESTED, 1.0, "ada"))
    await wait_in_loop(lambda: other.run_id not in registry.live, "the dispatcher carries out the stop")
    await bench.dispatcher.close()
    stopped = asyncio.ensure_future(registry.record(run.run_id, Event(Kind.STOP_REQUESTED, 1.0, "ada")))
    await asyncio.sleep(0)
    await registry.close()
    assert (await stopped).want == "stop"
    for _ in range(10):
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert bench.fatal == [] and not bench.dispatcher._tasks


async def test_a_background_task_that_fails_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An error that ends a background task is logged and shown by health, and the other tasks continue."""

    async def breaks() -> None:
        raise ZeroDivisionError("ours")

    async def continues() -> None:
        await asyncio.Event().wait()

    warnings: list[str] = []
    async with background(warnings.append, lambda: False, breaks(), continues()):
        await wait_in_loop(lambda: warnings, "the failure is reported")
    assert entries(caplog.records) == [Catalogue.TASK_FAILED] and "breaks" in caplog.text
    [warning] = warnings
    assert Catalogue.TASK_FAILED.code in warning and "ours" in warning


async def test_a_start_that_fails_half_way_closes_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If reconcile fails, dispatcher, launcher and shims are closed, the dispatcher first."""
    closed: list[str] = []

    class FakePart:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

        def close(self) -> "asyncio.Future[None]":
            closed.append(self._name)
            is_closed = asyncio.get_running_loop().create_future()
            is_closed.set_result(None)
            return is_closed

    class FakeParts:
        def __getattr__(self, name: str) -> Any:
            return FakePart(name)

    async def reconcile(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(service, "reconcile", reconcile)
    daemon = service.Service(Settings(paths=Paths(tmp_path, tmp_path / "s")), Clock())
    parts: Any = FakeParts()
    with pytest.raises(asyncio.CancelledError):
        async with contextlib.AsyncExitStack() as stack:
            await daemon._recover(parts, stack, unused)
    assert closed == ["dispatcher", "launcher", "shims"]
