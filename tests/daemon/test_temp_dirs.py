"""The temporary directory of an ended attempt is removed, also if its shim was killed before."""

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
    """A list of paths that belong to no run; they are removed at the end."""
    places: list[Path] = []
    yield places
    for place in places:
        with suppress(FileNotFoundError):
            place.unlink() if place.is_symlink() else place.rmdir()


def test_a_start_removes_leaked_temporary_directories(harness: DaemonHarness, strangers: list[Path]) -> None:
    """A start removes the temporary directories of ended attempts; those of live runs, and other entries with
    such names, stay."""
    ended, also = harness.submit("true"), harness.submit("false")
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    harness.until(live, "EXEC")
    harness.ended(ended)
    harness.ended(also)
    in_use = Path(temporary_path(live, 1))
    assert in_use.is_dir()
    for run_id in (ended, also):
        wait_until(Path(temporary_path(run_id, 1)).exists, lambda exists: not exists, "its shim removes it")
    harness.stop()

    leaked = Path(temporary_path(ended, 1))
    (leaked / "deep").mkdir(parents=True)
    (leaked / "deep" / "file").write_bytes(b"x" * 1000)
    stranger = Path(temporary_path(f"{os.getpid():026d}", 1))
    stranger.mkdir()
    link = Path(temporary_path(also, 1))
    link.symlink_to(harness.home)
    strangers += [stranger, link]
    harness.start()
    wait_until(leaked.exists, lambda exists: not exists, "the daemon removes it")
    assert stranger.is_dir() and link.is_symlink() and in_use.is_dir() and harness.home.is_dir()
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7
    wait_until(in_use.exists, lambda exists: not exists, "its shim removes it")
