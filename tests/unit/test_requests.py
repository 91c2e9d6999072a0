"""Requests reach the run's shim while the daemon carries out another action for the run."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.procfs import read_start_ticks
from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Registry
from tests.harness.waiting import wait_in_loop
from tests.store.building import dispatched, new_run, submission, to_exec
from tests.unit.test_orderly_stop import Bench


class FakeConnection:
    """Stands for the connection of a shim; records the notifications."""

    def __init__(self) -> None:
        self.notified: list[str] = []

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        self.notified.append(method)
        return True

    async def wait_for(self, method: str) -> None:
        """Wait until the last notification is `method`."""
        await wait_in_loop(lambda: self.notified[-1:] == [method], f"{method} is sent")

    def on_close(self, callback: Callable[[], None]) -> None: ...

    def abort(self) -> None: ...


async def test_requests_are_sent_while_a_launch_has_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the launcher forked the shim and hangs before its reply, requests still reach the shim."""
    registry = await Registry.open(tmp_path / "registry.sqlite3")
    bench = Bench(tmp_path, registry)
    ordered = asyncio.Event()

    async def unanswered(run: Run) -> None:
        ordered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.dispatcher._launches, "order", unanswered)
    run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
    await registry.record(run.run_id, dispatched())
    async with asyncio.timeout(20):
        await ordered.wait()
    ticks = read_start_ticks(os.getpid())
    assert ticks is not None
    connection = FakeConnection()
    await registry.record(run.run_id, *to_exec()[1:])
    bench.shims.attach(run.run_id, 1, connection, os.getpid(), ticks)
    bench.dispatcher.note_registered(run.run_id)
    for kind in (Kind.PAUSE_REQUESTED, Kind.RESUME_REQUESTED, Kind.STOP_REQUESTED):
        await registry.record(run.run_id, Event(kind, 1.0, "ada", {"mode": "freeze"}))
        method = "control." + kind.removesuffix("_requested")
        await connection.wait_for(method)
    await bench.dispatcher.close()
    bench.shims.close()
    await registry.close()
    assert bench.fatal == []
