"""The temporary directories of ended runs that the launcher is asked to check."""

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
    """Stands for the launcher's client; records the checks, and how many wait at the same time."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, int | None]] = []
        self.waiting = self.most_waiting = 0

    async def check_tree(self, run_id: str, shim: Any, attempt: int | None = None) -> tuple[bool, list[int]]:
        self.checked.append((run_id, attempt))
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        return True, []


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def temporary_dirs(tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> TempDirs:
    """Return TempDirs over an ended and a live run with ten attempts each, with `tmp` as /tmp."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(rundir, "TEMPORARY_BASE", str(tmp_path / "tmp"))
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            (tmp_path / "runs" / run_id / rundir.attempt_name(attempt)).mkdir(parents=True)
    registry = SimpleNamespace(live={LIVE: object()})
    return TempDirs(cast("Any", registry), RunDirs(tmp_path / "runs"), cast("Any", launcher))


async def test_temporary_directories_of_ended_runs_are_checked(
    temporary_dirs: TempDirs, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher checks a few directories together, because one scan of the processes suffices for them."""
    monkeypatch.setattr(temp_dirs, "ASKED_TOGETHER", 4)
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            os.mkdir(rundir.temporary_path(run_id, attempt))
    await temporary_dirs.remove_unused()
    assert sorted(launcher.checked) == [(ENDED, attempt) for attempt in range(1, 11)]
    assert launcher.most_waiting == 4


async def test_foreign_entries_are_not_checked(
    temporary_dirs: TempDirs, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown attempts, files, links and directories of other users are not checked."""
    for attempt in range(11, 50):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    Path(rundir.temporary_path(ENDED, 1)).touch()
    Path(rundir.temporary_path(ENDED, 2)).symlink_to("/")
    os.mkdir(rundir.temporary_path(ENDED, 3))
    stat_of = os.lstat
    other_users_stat = SimpleNamespace(st_uid=os.getuid() + 1)
    is_third = rundir.attempt_name(3)
    monkeypatch.setattr(
        os, "lstat", lambda path: other_users_stat if str(path).endswith(is_third) else stat_of(path)
    )
    await temporary_dirs.remove_unused()
    assert launcher.checked == []


async def test_the_directory_of_a_living_shim_is_not_checked(
    temporary_dirs: TempDirs, launcher: Launcher, tmp_path: Path
) -> None:
    """A living shim removes and counts the files of its directory itself."""
    for attempt in (1, 2):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    held = os.open(tmp_path / "runs" / ENDED / rundir.attempt_name(2), os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        await temporary_dirs.remove_unused()
    finally:
        os.close(held)
    assert launcher.checked == [(ENDED, 1)]
