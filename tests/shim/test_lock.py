"""The attempt's lock: one shim has it, and a daemon that looks at it takes it from nobody."""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.shim.record import Record, Taken


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[int]:
    """A directory whose lock somebody looks at."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield descriptor
    os.close(descriptor)


def test_a_look_at_the_lock_does_not_send_a_shim_away(tmp_path: Path, looked_at: int) -> None:
    """The daemon holds the lock for a moment to see whether it is held; a shim that begins then goes on."""
    timer = threading.Timer(0.02, fcntl.flock, (looked_at, fcntl.LOCK_UN))
    timer.start()
    held = Record(str(tmp_path))
    timer.join()
    os.close(held.dir_fd)


def test_a_second_shim_leaves(tmp_path: Path) -> None:
    """An order that was carried out already is carried out by nobody else."""
    held = Record(str(tmp_path))
    with pytest.raises(Taken):
        Record(str(tmp_path))
    os.close(held.dir_fd)
