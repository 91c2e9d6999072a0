"""How large ended runs are, while somebody else removes them."""

import os
from pathlib import Path
from typing import Any

import pytest

from mosaicd.clock import Clock
from mosaicd.config import Paths, Settings
from mosaicd.rundirs.directories import RunDirs
from mosaicd.upkeep import retention
from mosaicd.upkeep.retention import Retention, size_of

nobody: Any = None


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
    keeper = Retention(nobody, nobody, rundirs, settings.retention, Clock())
    for name in ("first", "second"):
        (rundirs.path(name)).mkdir()
    assert (await keeper.measure(["first"])).keys() == {"first"}
    measured = keeper._measure

    def measure(run_ids: Any) -> dict[str, int]:
        keeper._sizes.clear()  # as `finish` does with what it has removed
        return measured(run_ids)

    monkeypatch.setattr(keeper, "_measure", measure)
    assert (await keeper.measure(["first", "second"])).keys() == {"first", "second"}
