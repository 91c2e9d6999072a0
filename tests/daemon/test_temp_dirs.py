"""The temporary directory of an attempt that is over goes, also where its shim did not live to remove it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mosaicd.protocol.rundir import temporary_path
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


@pytest.fixture
def strangers() -> Iterator[list[Path]]:
    """Directories that belong to no run, removed at the end."""
    places: list[Path] = []
    yield places
    for place in places:
        with suppress(FileNotFoundError):
            place.unlink() if place.is_symlink() else place.rmdir()


def test_what_ended_attempts_left_goes_at_the_start(harness: DaemonHarness, strangers: list[Path]) -> None:
    """With all in it, once the next daemon is up; a live run's stays, and what only has such a name, too."""
    ended, also = harness.submit("true"), harness.submit("false")
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    harness.until(live, "EXEC")
    harness.ended(ended)
    harness.ended(also)
    in_use = Path(temporary_path(live, 1))
    assert in_use.is_dir()
    for run_id in (ended, also):
        wait_until(Path(temporary_path(run_id, 1)).exists, lambda there: not there, "its shim removes it")
    harness.stop()

    left = Path(temporary_path(ended, 1))
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "file").write_bytes(b"x" * 1000)
    stranger = Path(temporary_path(f"{os.getpid():026d}", 1))
    stranger.mkdir()
    link = Path(temporary_path(also, 1))
    link.symlink_to(harness.home)
    strangers += [stranger, link]
    harness.start()
    wait_until(left.exists, lambda there: not there, "it goes")
    assert stranger.is_dir() and link.is_symlink() and in_use.is_dir() and harness.home.is_dir()
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7
    wait_until(in_use.exists, lambda there: not there, "its shim removes it")
