"""A daemon that is killed between fork and exec: its child holds the daemon's locks for a moment."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from mosaicd.host import lock
from tests.harness.places import ROOT

#: Takes the locks as a daemon does, forks a child that holds them until stdin closes, and exits.
DYING = """
import os, sys
from pathlib import Path
from mosaicd.host import lock
home = Path(sys.argv[1])
held = lock.acquire(home / "state", home / "s", started_at=1.0)
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
os._exit(0)
"""


@contextmanager
def dead_daemon(home: Path) -> Iterator[IO[bytes]]:
    """Yield the pipe to the child of a dead daemon; the child holds its locks until the pipe closes."""
    process = subprocess.Popen([sys.executable, "-c", DYING, str(home)], cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as held:
        assert process.wait(60) == 0
        yield held


def test_next_daemon_waits_for_locks_of_a_dead_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a child of a dead daemon still holds the locks, the next daemon waits for them and starts."""
    pauses = []
    with dead_daemon(tmp_path) as held:

        def pause(seconds: float) -> None:
            held.close()
            pauses.append(signal.sigtimedwait([], seconds))

        monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=pause))
        lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0).close()
    assert pauses, "the lock was already free: the test proves nothing"


def test_next_daemon_gives_up_if_locks_of_a_dead_one_stay_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a process keeps the locks of a dead daemon, the next daemon gives up with AlreadyRunning."""
    monkeypatch.setattr(lock, "_TRIES", 100)
    with dead_daemon(tmp_path), pytest.raises(lock.AlreadyRunning):
        lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0)
