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


def test_a_file_that_goes_between_two_looks_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who prune look at the same directory: neither makes a mistake of the other's work."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bytes(1 << 16))
    whole = size_of(tmp_path)
    listed = retention._below

    def below(path: Path) -> Any:
        for entry in listed(path):
            if entry.name == "b":
                os.unlink(entry.path)
            yield entry

    monkeypatch.setattr(retention, "_below", below)
    assert size_of(tmp_path) == whole * 2 // 3


async def test_a_size_that_is_forgotten_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is removed while others are measured keeps the size that it was chosen for."""
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


async def test_a_pipe_in_place_of_a_spec_does_not_hold_up_pruning(tmp_path: Path) -> None:
    """The spec of a live run is read for the runs that it names; a pipe without a writer is left out."""
    settings = Settings(paths=Paths(tmp_path, tmp_path / "s"))
    rundirs = RunDirs(tmp_path / "runs")
    run = SimpleNamespace(run_id="live", origin=None, cwd=None, command=())
    registry: Any = SimpleNamespace(live={"live": run})
    keeper = Retention(registry, unused, rundirs, settings.retention, Clock())
    pipe = rundirs.path("live") / rundir.SPEC
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    asking = asyncio.create_task(keeper.in_use())
    await asyncio.wait([asking], timeout=5)
    is_answered = asking.done()
    os.close(os.open(pipe, os.O_RDWR))  # a reader that waits goes on
    assert is_answered and await asking == frozenset()
