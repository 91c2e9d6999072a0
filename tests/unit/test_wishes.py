"""A request reaches the run's shim, also while another action is being carried out for the run."""

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


class Line:
    """The connection of a shim, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        self.told.append(method)
        return True

    async def hears(self, method: str) -> None:
        """Wait until the last that it was told is `method`."""
        await wait_in_loop(lambda: self.told[-1:] == [method], f"{method} is sent")

    def on_close(self, callback: Callable[[], None]) -> None: ...

    def abort(self) -> None: ...


async def test_a_launch_without_an_answer_keeps_no_word_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has forked the shim and stands still before it says so: the run works, and is told
    what is wanted of it without waiting for the next launcher."""
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
    line = Line()
    await registry.record(run.run_id, *to_exec()[1:])
    bench.shims.attach(run.run_id, 1, line, os.getpid(), ticks)
    bench.dispatcher.note_registered(run.run_id)
    for kind in (Kind.PAUSE_REQUESTED, Kind.RESUME_REQUESTED, Kind.STOP_REQUESTED):
        await registry.record(run.run_id, Event(kind, 1.0, "ada", {"mode": "freeze"}))
        word = "control." + kind.removesuffix("_requested")
        await line.hears(word)
    await bench.dispatcher.close()
    bench.shims.close()
    await registry.close()
    assert bench.fatal == []
