"""The attempt's lock: one shim holds it, and a daemon that checks it does not take it away."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.shim.attempt_dir import AttemptDir, AttemptTaken


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[int]:
    """A directory whose lock is being checked."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield descriptor
    os.close(descriptor)


def test_a_look_at_the_lock_does_not_send_a_shim_away(
    tmp_path: Path, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon holds the lock for a moment to see whether it is held; a shim that begins then goes on."""
    waits: list[float] = []

    def wait(pause_s: float) -> None:
        waits.append(pause_s)
        if len(waits) == 4:
            fcntl.flock(looked_at, fcntl.LOCK_UN)

    monkeypatch.setattr("mosaicd.shim.attempt_dir.time.sleep", wait)
    attempt_dir = AttemptDir(str(tmp_path))
    assert len(waits) == 4
    os.close(attempt_dir.dir_fd)


def test_a_second_shim_leaves(tmp_path: Path) -> None:
    """An order that was carried out is not carried out again."""
    attempt_dir = AttemptDir(str(tmp_path))
    with pytest.raises(AttemptTaken):
        AttemptDir(str(tmp_path))
    os.close(attempt_dir.dir_fd)
