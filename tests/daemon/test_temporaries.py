"""The temporary directory of an attempt that is over goes, also where its shim did not live to remove it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mosaicd.protocol.rundir import temporary_path
from tests.daemon.house import House, eventually


@pytest.fixture
def strangers() -> Iterator[list[Path]]:
    """Places that are nobody's of ours, removed at the end."""
    places: list[Path] = []
    yield places
    for place in places:
        with suppress(FileNotFoundError):
            place.unlink() if place.is_symlink() else place.rmdir()


def test_what_ended_attempts_left_goes_at_the_start(house: House, strangers: list[Path]) -> None:
    """With all in it, once the next daemon is up; a live run's stays, and what only has such a name, too."""
    ended, also = house.submit("true"), house.submit("false")
    gate = house.home / "gate"
    live = house.program("ticker", str(gate))
    house.until(live, "EXEC")
    house.ended(ended)
    house.ended(also)
    in_use = Path(temporary_path(live, 1))
    assert in_use.is_dir()
    for run_id in (ended, also):
        eventually(Path(temporary_path(run_id, 1)).exists, lambda there: not there, "its shim removes it")
    house.stop()

    left = Path(temporary_path(ended, 1))
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "file").write_bytes(b"x" * 1000)
    stranger = Path(temporary_path(f"{os.getpid():026d}", 1))
    stranger.mkdir()
    link = Path(temporary_path(also, 1))
    link.symlink_to(house.home)
    strangers += [stranger, link]
    house.start()
    eventually(left.exists, lambda there: not there, "it goes")
    assert stranger.is_dir() and link.is_symlink() and in_use.is_dir() and house.home.is_dir()
    gate.touch()
    assert house.ended(live)["exit_code"] == 7
    eventually(in_use.exists, lambda there: not there, "its shim removes it")
