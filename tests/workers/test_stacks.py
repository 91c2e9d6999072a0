"""Python stacks on request: announced, written by faulthandler, and given back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mosaic_worker import Stacks


def test_who_announces_is_answered(tmp_path: Path) -> None:
    """The announcement names this process and the signal; the signal writes its stacks and ends no
    process."""
    path = tmp_path / "stacks"
    stacks = Stacks(path)
    stacks.announce()
    try:
        first = path.read_text()
        assert first == f"mosaic-stacks pid={os.getpid()} signal={signal.SIGUSR1:d}\n"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert "test_who_announces_is_answered" in path.read_text()
    finally:
        stacks.close()
    assert not stacks.is_announced


def test_a_programs_own_signal_is_left_alone(tmp_path: Path) -> None:
    """A worker that uses SIGUSR1 keeps it, and is asked with the other; one that uses both is not asked."""
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


def test_nothing_is_announced_in_vain(tmp_path: Path) -> None:
    """Outside mosaicd, or where the file cannot be written, the worker works on without."""
    for path in (None, tmp_path / "no" / "such" / "place"):
        stacks = Stacks(path)
        stacks.announce()
        assert not stacks.is_announced
        stacks.close()


def test_a_given_back_signal_is_the_kernels_again(tmp_path: Path) -> None:
    """After `close` the signal does what it did before: to a plain program, the end of it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from mosaic_worker import Stacks\n"
        "s = Stacks(Path(sys.argv[1])); s.announce(); s.close(); os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "stacks")], check=False)
    assert done.returncode == -signal.SIGUSR1
