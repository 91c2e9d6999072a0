"""Python stacks on request: the worker announces a signal, faulthandler writes the stacks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mosaic_worker import Stacks


def test_announced_signal_writes_the_stacks(tmp_path: Path) -> None:
    """The announcement has the pid and the signal; the signal writes the stacks and ends no process."""
    path = tmp_path / "stacks"
    stacks = Stacks(path)
    stacks.announce()
    try:
        first = path.read_text()
        assert first == f"mosaic-stacks pid={os.getpid()} signal={signal.SIGUSR1:d}\n"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert "test_announced_signal_writes_the_stacks" in path.read_text()
    finally:
        stacks.close()
    assert not stacks.is_announced


def test_signals_that_the_worker_uses_are_not_announced(tmp_path: Path) -> None:
    """If the worker uses SIGUSR1, SIGUSR2 is announced; if it uses both, none is announced."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        stacks = Stacks(tmp_path / "stacks")
        stacks.announce()
        assert not stacks.is_announced
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        stacks.announce()
        assert f"signal={signal.SIGUSR2:d}" in (tmp_path / "stacks").read_text()
        stacks.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_nothing_is_announced_without_a_writable_file(tmp_path: Path) -> None:
    """Outside mosaicd, or if the file cannot be written, no signal is announced and no error is raised."""
    for path in (None, tmp_path / "no" / "such" / "place"):
        stacks = Stacks(path)
        stacks.announce()
        assert not stacks.is_announced
        stacks.close()


def test_closed_stacks_restore_the_signal(tmp_path: Path) -> None:
    """After `close` the signal has its former effect: it ends a program without a handler."""
    code = (
        "import os, signal, sys; from pathlib import Path; from mosaic_worker import Stacks\n"
        "s = Stacks(Path(sys.argv[1])); s.announce(); s.close(); os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "stacks")], check=False)
    assert done.returncode == -signal.SIGUSR1
