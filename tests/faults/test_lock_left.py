"""A kill -9 in the very moment in which the daemon makes a child: the child has its locks for an instant."""

import subprocess
import sys
from pathlib import Path

import pytest

from mosaicd import lock

#: Takes the locks as a daemon does, leaves them with a child for `argv[2]` seconds, and dies.
DYING = """
import os, sys, time
from pathlib import Path
from mosaicd import lock
home = Path(sys.argv[1])
held = lock.acquire(home / "state", home / "s", started_at=1.0)
if os.fork() == 0:
    os.close(1)
    time.sleep(float(sys.argv[2]))
os._exit(0)
"""
ROOT = Path(__file__).resolve().parents[2]


def die(home: Path, for_s: float) -> None:
    subprocess.run([sys.executable, "-c", DYING, str(home), str(for_s)], cwd=ROOT, check=True)


def test_the_next_daemon_waits_for_what_a_dead_one_left(tmp_path: Path) -> None:
    """A lock whose holder is dead is free within an instant, so a restart is not refused for it."""
    die(tmp_path, 0.2)
    lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0).close()


def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody keeps a dead daemon's lock all the same, the next one says so and ends."""
    monkeypatch.setattr(lock, "_TRIES", 100)
    die(tmp_path, 3.0)
    with pytest.raises(lock.AlreadyRunning):
        lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0)
