"""Pause and resume: while a run is frozen, no process of its tree runs."""

import json
import time
from pathlib import Path

import pytest

from mosaicd.protocol.errors import Conflict
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def is_frozen(pid: int) -> bool:
    """Return whether a process is stopped, or its control group is frozen."""
    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
        return True
    lines = Path(f"/proc/{pid}/cgroup").read_text().split("\n")
    below = next(line[3:] for line in lines if line[:3] == "0::")
    return any(
        "frozen 1" in events.read_text()
        for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        if (events := Path(f"{root}{below}/cgroup.events")).exists()
    )


def test_pause_freezes_the_tree_and_resume_thaws_it(harness: DaemonHarness) -> None:
    """In PAUSE every process is stopped, also a child in its own session; resume thaws them all."""
    run_id = harness.program("counters")
    counts = [harness.home / name for name in ("leader", "child")]
    wait_until(lambda: [count.exists() for count in counts], all, "both processes count")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    pids = harness.pids(run_id)
    before = [count.read_text() for count in counts]

    assert len(pids) == 2 and all(map(is_frozen, pids))
    assert [count.read_text() for count in counts] == before

    harness.call("run.resume", run_id=run_id)
    harness.until(run_id, "EXEC")
    wait_until(lambda: any(map(is_frozen, pids)), lambda still: not still, "the tree is thawed")
    wait_until(
        lambda: (harness.home / "child").read_text(),
        lambda text: text not in ("", before[1]),
        "the child counts again",
    )


def test_stop_of_a_frozen_run_ends_it(harness: DaemonHarness) -> None:
    """A frozen tree does not act on SIGTERM, so a stop thaws it."""
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    harness.call("run.stop", run_id=run_id, grace_s=15)  # long enough for SIGTERM to end it

    run = harness.ended(run_id)
    assert run["outcome"] == "cancelled" and run["signal"] == 15


def test_pause_of_a_waiting_run_holds_it(build: Build) -> None:
    """Pausing a run in INIT holds it; resume releases it."""
    harness = build(cpus={"slots": 1})
    first = harness.submit("sleep", "60")
    harness.until(first, "EXEC")
    second = harness.submit("true")
    assert harness.call("run.pause", run_id=second)["held"] is True
    harness.call("run.stop", run_id=first, grace_s=0)
    harness.ended(first)

    assert harness.get(second)["state"] == "INIT"
    harness.call("run.resume", run_id=second)
    assert harness.ended(second)["exit_code"] == 0


def test_cooperative_pause_of_a_command_is_refused(harness: DaemonHarness) -> None:
    """A pause mode that the program does not support is a conflict; the error names a mode that works."""
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    with pytest.raises(Conflict, match="freeze"):
        harness.call("run.pause", run_id=run_id, mode="cooperative")
    assert harness.get(run_id)["want"] == "run"


def test_pause_does_not_count_towards_the_time_limit(harness: DaemonHarness) -> None:
    """The active time, which the time limit is compared with, does not include a pause."""
    gate = harness.home / "gate"
    began = time.monotonic()
    run_id = harness.program("ticker", str(gate), time_limit_s=120)
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    paused = time.monotonic()
    paused_s = wait_until(
        lambda: time.monotonic() - paused, lambda seen: seen > 1.0, "a pause long enough to measure"
    )
    harness.call("run.resume", run_id=run_id)
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7
    worked_s = json.loads((harness.attempt(run_id) / "exit.json").read_text())["active_s"]
    assert worked_s + paused_s <= time.monotonic() - began + 0.001, "active_s is rounded to milliseconds"
