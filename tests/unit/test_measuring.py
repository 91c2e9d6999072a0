"""Retention reads run directories while other programs change them."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mosaicd.clock import Clock
from mosaicd.config import Paths, Settings
from mosaicd.protocol import rundir
from mosaicd.rundirs.directories import RunDirs
from mosaicd.upkeep import retention
from mosaicd.upkeep.retention import Retention, size_of

unused: Any = None


def test_a_file_that_is_removed_during_the_measurement_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another prune removes a file during the measurement, its size is left out without an error."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bytes(1 << 16))
    complete_bytes = size_of(tmp_path)
    listed = retention._below

    def below(path: Path) -> Any:
        for entry in listed(path):
            if entry.name == "b":
                os.unlink(entry.path)
            yield entry

    monkeypatch.setattr(retention, "_below", below)
    assert size_of(tmp_path) == complete_bytes * 2 // 3


async def test_a_size_that_is_dropped_during_a_measurement_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a run is removed while other runs are measured, its size is still in the result."""
    settings = Settings(paths=Paths(tmp_path, tmp_path / "s"))
    rundirs = RunDirs(tmp_path / "runs")
    keeper = Retention(unused, unused, rundirs, settings.retention, Clock())
    for name in ("first", "second"):
        (rundirs.path(name)).mkdir()
    assert (await keeper.measure(["first"])).keys() == {"first"}
    measured = keeper._measure

    def measure(run_ids: Any) -> dict[str, int]:
        keeper._sizes.clear()  # as `finish` does with what it has removed
        return measured(run_ids)

    monkeypatch.setattr(keeper, "_measure", measure)
    assert (await keeper.measure(["first", "second"])).keys() == {"first", "second"}


async def test_a_pipe_in_place_of_spec_json_does_not_block_pruning(tmp_path: Path) -> None:
    """The search for run ids in the specs of live runs skips a pipe that has no writer."""
    settings = Settings(paths=Paths(tmp_path, tmp_path / "s"))
    rundirs = RunDirs(tmp_path / "runs")
    run = SimpleNamespace(run_id="live", origin=None, cwd=None, command=())
    registry: Any = SimpleNamespace(live={"live": run})
    keeper = Retention(registry, unused, rundirs, settings.retention, Clock())
    pipe = rundirs.path("live") / rundir.SPEC
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    search = asyncio.create_task(keeper.in_use())
    await asyncio.wait([search], timeout=5)
    is_answered = search.done()
    os.close(os.open(pipe, os.O_RDWR))  # a blocked reader would continue
    assert is_answered and await search == frozenset()
