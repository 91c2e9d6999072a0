"""What temporary directories the launcher is asked of: not what others made, nor what a shim still has."""

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
from mosaicd.upkeep.temp_dirs import Temporaries

TAIL = "0123456789"
ENDED, LIVE = f"{'0' * 16}{TAIL}", f"{'0' * 16}{TAIL[::-1]}"


class Link:
    """Takes note of what it is asked, and of how many questions wait at a time."""

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
def link() -> Link:
    return Link()


@pytest.fixture
def tidy(tmp_path: Path, link: Link, monkeypatch: pytest.MonkeyPatch) -> Temporaries:
    """Of two runs with ten attempts each, one of them live; what is temporary lies in `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(rundir, "TEMPORARY_BASE", str(tmp_path / "tmp"))
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            (tmp_path / "runs" / run_id / rundir.attempt_name(attempt)).mkdir(parents=True)
    registry = SimpleNamespace(live={LIVE: object()})
    return Temporaries(cast("Any", registry), RunDirs(tmp_path / "runs"), cast("Any", link))


async def test_what_ended_runs_left_is_asked_about(
    tidy: Temporaries, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time: one look at all processes answers for them."""
    monkeypatch.setattr(temp_dirs, "TOGETHER", 4)
    for run_id in (ENDED, LIVE):
        for attempt in range(1, 11):
            os.mkdir(rundir.temporary_path(run_id, attempt))
    await tidy.clear()
    assert sorted(link.asked) == [(ENDED, attempt) for attempt in range(1, 11)]
    assert link.most_waiting == 4


async def test_nobody_else_has_us_look(
    tidy: Temporaries, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names can be made by anybody: no such attempt, a file, a link, another user's."""
    for attempt in range(11, 50):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    Path(rundir.temporary_path(ENDED, 1)).touch()
    Path(rundir.temporary_path(ENDED, 2)).symlink_to("/")
    os.mkdir(rundir.temporary_path(ENDED, 3))
    stat_of = os.lstat
    told = SimpleNamespace(st_uid=os.getuid() + 1)
    is_third = rundir.attempt_name(3)
    monkeypatch.setattr(os, "lstat", lambda path: told if str(path).endswith(is_third) else stat_of(path))
    await tidy.clear()
    assert link.asked == []


async def test_what_a_shim_has_is_its_own_to_remove(tidy: Temporaries, link: Link, tmp_path: Path) -> None:
    """It counts what it removes: two at it would both find things missing."""
    for attempt in (1, 2):
        os.mkdir(rundir.temporary_path(ENDED, attempt))
    held = os.open(tmp_path / "runs" / ENDED / rundir.attempt_name(2), os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        await tidy.clear()
    finally:
        os.close(held)
    assert link.asked == [(ENDED, 1)]
