"""A shim that is alive and does nothing, because it is stopped or hangs, is given up in time."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

#: Short for a test, and long for a machine that stalls; the runs are never silent themselves.
QUICK = {"shim_silence_s": 3.0}
TALKS = "import time\nwhile True: print('on and on', flush=True); time.sleep(0.1)"


def shim_of(harness: DaemonHarness, run_id: str) -> int:
    """The parent of the run's worker."""
    status = Path(f"/proc/{harness.get(run_id)['pid']}/status").read_text()
    found = re.search(r"^PPid:\s(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])


def wedge(harness: DaemonHarness, run_id: str) -> int:
    harness.allow(
        Catalogue.SHIM_SILENT, Catalogue.SHIM_LOST, Catalogue.LAUNCHER_LOST, Catalogue.LAUNCHER_SILENT
    )  # which has no more time than a shim
    harness.until(run_id, "EXEC")
    pid = shim_of(harness, run_id)
    os.kill(pid, signal.SIGSTOP)
    return pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_stopped_shim_is_taken_for_lost(build: Build) -> None:
    """A shim that is stopped is killed after `shim_silence_s`, its tree ended, its slot free; shim_lost."""
    harness = build(timeouts=QUICK)
    run_id = harness.python(TALKS)
    shim = wedge(harness, run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("interrupted", "shim_lost")
    assert f"{QUICK['shim_silence_s']:g} s" in run["cause"]["reason"]
    assert harness.pids(run_id) == []
    wait_until(lambda: is_gone(shim), bool, "the stopped shim is ended")
    assert harness.call("daemon.health")["cpus"]["free"] == 2


@pytest.mark.slow
def test_a_stopped_shim_is_retried_elsewhere(build: Build) -> None:
    """shim_lost is an infrastructure cause: a run with retries gets another attempt, with another shim."""
    harness = build(timeouts=QUICK)
    run_id = harness.python(TALKS, retries=1)
    wedge(harness, run_id)
    wait_until(lambda: harness.get(run_id), lambda run: run["attempt"] == 2 and run["state"] == "EXEC", "2nd")
    assert len(harness.pids(run_id)) == 1
    harness.call("run.stop", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "cancelled"


@pytest.mark.slow
def test_stop_of_a_run_with_a_stopped_shim(build: Build) -> None:
    """A stop whose shim cannot hear it is carried out all the same."""
    harness = build(timeouts=QUICK)
    run_id = harness.python(TALKS)
    wedge(harness, run_id)
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["state"] == "TERM"
    assert harness.pids(run_id) == []


def test_a_shim_that_was_stopped_before_the_restart(build: Build) -> None:
    """A shim that holds its lock and never registers with the new daemon is given up as well."""
    harness = build(timeouts=QUICK)
    run_id = harness.python(TALKS)
    shim = wedge(harness, run_id)
    harness.restart()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    wait_until(lambda: is_gone(shim), bool, "the stopped shim is ended")


def test_a_shim_that_nothing_names(build: Build) -> None:
    """Without launch.json, and without a word of its own, who holds the attempt is still found, and ended."""
    harness = build(timeouts=QUICK)
    run_id = harness.python(TALKS)
    shim = wedge(harness, run_id)
    (harness.attempt(run_id) / rundir.LAUNCH).unlink()
    harness.restart()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    wait_until(lambda: is_gone(shim), bool, "the stopped shim is ended")
    assert harness.pids(run_id) == []


@pytest.mark.slow
def test_a_stopped_daemon_gives_nobody_up(build: Build) -> None:
    """A daemon that stood still itself hears first and judges then: its runs go on."""
    harness = build(timeouts={"shim_silence_s": 7.0})
    run_id = harness.submit("sleep", "600")
    harness.until(run_id, "EXEC")
    assert harness.process is not None
    before = progress_of(harness, run_id)
    os.kill(harness.process.pid, signal.SIGSTOP)
    signal.sigtimedwait([], 9.0)
    os.kill(harness.process.pid, signal.SIGCONT)
    wait_until(lambda: progress_of(harness, run_id), lambda now: now > before, "a beat comes through")
    assert harness.get(run_id)["state"] == "EXEC"


def progress_of(harness: DaemonHarness, run_id: str) -> Any:
    return harness.get(run_id)["last_heartbeat_at"]


def test_a_stopped_launcher_is_replaced(build: Build) -> None:
    """A launcher that stands still is ended after a while, and the next one gets the orders it had."""
    harness = build(timeouts=QUICK)
    harness.allow(Catalogue.LAUNCHER_LOST, Catalogue.LAUNCHER_SILENT)
    run_id = harness.submit("sh", "-c", "exit 3")
    harness.ended(run_id)
    os.kill(harness.launcher_pid(), signal.SIGSTOP)
    second = harness.submit("sh", "-c", "exit 4")
    harness.call("daemon.health")
    assert harness.ended(second)["exit_code"] == 4
