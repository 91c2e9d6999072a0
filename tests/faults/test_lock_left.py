"""A kill -9 in the very moment in which the daemon makes a child: the child has its locks for an instant."""

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

#: Takes the locks as a daemon does, leaves them with a child until its stdin ends, and dies.
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
def dead(home: Path) -> Iterator[IO[bytes]]:
    """A daemon that died and left its locks with a child, which has them until this is closed."""
    process = subprocess.Popen([sys.executable, "-c", DYING, str(home)], cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as held:
        assert process.wait(60) == 0
        yield held


def test_the_next_daemon_waits_for_what_a_dead_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock whose holder is dead is free within an instant, so a restart is not refused for it."""
    pauses = []
    with dead(tmp_path) as held:

        def pause(seconds: float) -> None:
            held.close()
            pauses.append(signal.sigtimedwait([], seconds))

        monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=pause))
        lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0).close()
    assert pauses, "it was free at once, and nothing is proved"


def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process keeps the lock of a dead daemon, the next daemon reports it and exits."""
    monkeypatch.setattr(lock, "_TRIES", 100)
    with dead(tmp_path), pytest.raises(lock.AlreadyRunning):
        lock.acquire(tmp_path / "state", tmp_path / "s", started_at=2.0)
