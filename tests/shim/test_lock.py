"""The lock of an attempt: one shim holds it, and the daemon's check does not disturb a new shim."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.shim.attempt_dir import AttemptDir, AttemptTaken


@pytest.fixture
def checked_lock(tmp_path: Path) -> Iterator[int]:
    """Yield a directory whose lock is being checked."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield descriptor
    os.close(descriptor)


def test_a_shim_waits_while_the_daemon_checks_the_lock(
    tmp_path: Path, checked_lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the daemon checks it, the lock is shared for a moment; a new shim retries and gets the lock."""
    waits: list[float] = []

    def wait(pause_s: float) -> None:
        waits.append(pause_s)
        if len(waits) == 4:
            fcntl.flock(checked_lock, fcntl.LOCK_UN)

    monkeypatch.setattr("mosaicd.shim.attempt_dir.time.sleep", wait)
    attempt_dir = AttemptDir(str(tmp_path))
    assert len(waits) == 4
    os.close(attempt_dir.dir_fd)


def test_an_attempt_is_locked_by_one_shim(tmp_path: Path) -> None:
    """A second AttemptDir of the same attempt raises AttemptTaken until the first is closed."""
    attempt_dir = AttemptDir(str(tmp_path))
    with pytest.raises(AttemptTaken):
        AttemptDir(str(tmp_path))
    os.close(attempt_dir.dir_fd)
    os.close(AttemptDir(str(tmp_path)).dir_fd)
