"""Temporary directories of ended runs: which of them the launcher is asked about."""

import asyncio
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mosaicd.protocol import rundir
from mosaicd.rundirs.directories import RunDirs
from mosaicd.upkeep import temp_dirs
from mosaicd.upkeep.temp_dirs import TempDirs

TAIL = "0123456789"
ENDED, LIVE = f"{'0' * 16}{TAIL}", f"{'0' * 16}{TAIL[::-1]}"


class Launcher:
    """Stands for the launcher's client: records the questions, and how many wait at a time."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.waiting = self.most_waiting = 0

    async def check_tree(self, run_id: str, shim: Any, attempt: int | None = None) -> tuple[bool, list[int]]:
        self.asked.append((run_id, attempt))
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        return True, []


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def left(tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> TempDirs:
    """Of two runs with ten attempts each, one of them live; what is temporary lies in `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(rundir, "TEMPORARY_BASE", str(tmp_path / "tmp"))
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            (tmp_path / "runs" / run_id / rundir.attempt_name(attempt)).mkdir(parents=True)
    registry = SimpleNamespace(live={LIVE: object()})
    return TempDirs(cast("Any", registry), RunDirs(tmp_path / "runs"), cast("Any", launcher))


async def test_what_ended_runs_left_is_asked_about(
    left: TempDirs, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time: one look at all processes answers for them."""
    monkeypatch.setattr(temp_dirs, "ASKED_TOGETHER", 4)
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            os.mkdir(rundir.temporary_path(run_id, attempt))
    await left.remove_left()
    assert sorted(launcher.asked) == [(ENDED, attempt) for attempt in range(1, 11)]
    assert launcher.most_waiting == 4


async def test_what_others_made_is_not_asked_about(
    left: TempDirs, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user can make such a name: no such attempt, a file, a link, another user's directory."""
    for attempt in range(11, 50):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    Path(rundir.temporary_path(ENDED, 1)).touch()
    Path(rundir.temporary_path(ENDED, 2)).symlink_to("/")
    os.mkdir(rundir.temporary_path(ENDED, 3))
    stat_of = os.lstat
    told = SimpleNamespace(st_uid=os.getuid() + 1)
    is_third = rundir.attempt_name(3)
    monkeypatch.setattr(os, "lstat", lambda path: told if str(path).endswith(is_third) else stat_of(path))
    await left.remove_left()
    assert launcher.asked == []


async def test_a_directory_that_a_shim_holds_is_not_asked_about(
    left: TempDirs, launcher: Launcher, tmp_path: Path
) -> None:
    """The shim counts what it removes: of two removers each would find files missing."""
    for attempt in (1, 2):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    held = os.open(tmp_path / "runs" / ENDED / rundir.attempt_name(2), os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        await left.remove_left()
    finally:
        os.close(held)
    assert launcher.asked == [(ENDED, 1)]
