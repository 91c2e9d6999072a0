"""`make demo` runs to its end or is interrupted, and leaves no process and no file."""

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
    wait_until(lambda: processes.pids_with_path(home), lambda pids: not pids, "no process is left", 30)
    assert list(home.iterdir()) == []


def test_demo_runs_to_its_end_without_a_terminal(tmp_path: Path) -> None:
    """In under 40 s the demo shows every state, a paused and a stopped run, and a trained worker."""
    began = time.monotonic()
    process = start(tmp_path)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    assert time.monotonic() - began < 40
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
def test_interrupted_demo_leaves_no_process_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    """An interrupted demo stops its runs and its daemon, and removes its directory."""
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "EXEC" in line and "started" in line:
            break
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert_nothing_is_left(tmp_path)
