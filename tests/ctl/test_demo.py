"""`make demo`: a stranger sees it happen, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.places import ROOT
from tests.harness.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mosaic_tabular") is None, reason="the tabular worker is not installed"),
]


def start(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "demo/demo.py"], cwd=ROOT, env={**os.environ, "TMPDIR": str(home)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def assert_nothing_is_left(home: Path) -> None:
    wait_until(lambda: processes.pids_with_path(home), lambda left: not left, "no process is left", 30)
    assert list(home.iterdir()) == []


def test_the_demo_plays_without_a_terminal(tmp_path: Path) -> None:
    """Under 40 s: every state is seen, a run is paused, one waits and is stopped, the taxi has learned."""
    begun = time.monotonic()
    process = start(tmp_path)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    assert time.monotonic() - begun < 40
    for word in (
        "INIT",
        "HSHK",
        "RDY",
        "EXEC",
        "PAUSE",
        "TERM",
        "cancelled",
        "2000 episodes",
        "has learned",
    ):
        assert word in out, out
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle: runs, daemon and directory are gone."""
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "EXEC" in line and "started" in line:
            break
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert_nothing_is_left(tmp_path)
