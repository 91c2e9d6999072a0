"""A shim that is alive but does nothing, because it is stopped or hangs, is killed after `shim_silence_s`."""

import os
import signal
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from tests.harness import processes
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

#: Short enough for a test, longer than a busy machine stalls; the workers print all the time.
SHORT_SILENCE = {"shim_silence_s": 3.0}
CHATTY = "import time\nwhile True: print('working', flush=True); time.sleep(0.1)"


def stop_shim(harness: DaemonHarness, run_id: str) -> int:
    """Stop the shim of the only run with SIGSTOP; return its pid."""
    harness.allow(
        Catalogue.SHIM_SILENT, Catalogue.SHIM_LOST, Catalogue.LAUNCHER_LOST, Catalogue.LAUNCHER_SILENT
    )  # `shim_silence_s` limits the launcher too
    harness.until(run_id, "EXEC")
    [pid] = harness.shims()
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_stopped_shim_is_killed_and_the_run_interrupted(build: Build) -> None:
    """A stopped shim is killed after `shim_silence_s`; the cause is shim_lost, and the slot is free."""
    harness = build(timeouts=SHORT_SILENCE)
    run_id = harness.python(CHATTY)
    shim = stop_shim(harness, run_id)
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("interrupted", "shim_lost")
    assert f"{SHORT_SILENCE['shim_silence_s']:g} s" in run["cause"]["reason"]
    assert harness.pids(run_id) == []
    wait_until(lambda: not processes.is_alive(shim), bool, "the stopped shim is killed")
    assert harness.call("daemon.health")["cpus"]["free"] == 2


@pytest.mark.slow
def test_run_with_a_stopped_shim_is_retried(build: Build) -> None:
    """If a run with retries loses its shim, it gets another attempt with another shim."""
    harness = build(timeouts=SHORT_SILENCE)
    run_id = harness.python(CHATTY, retries=1)
    stop_shim(harness, run_id)
    wait_until(
        lambda: harness.get(run_id), lambda run: run["attempt"] == 2 and run["state"] == "EXEC", "attempt 2"
    )
    assert len(harness.pids(run_id)) == 1
    harness.call("run.stop", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "cancelled"


@pytest.mark.slow
def test_stop_ends_a_run_with_a_stopped_shim(build: Build) -> None:
    """A stop ends the run although its shim is stopped."""
    harness = build(timeouts=SHORT_SILENCE)
    run_id = harness.python(CHATTY)
    stop_shim(harness, run_id)
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["state"] == "TERM"
    assert harness.pids(run_id) == []


def test_shim_that_was_stopped_before_a_restart_is_killed(build: Build) -> None:
    """A stopped shim that never registers with the restarted daemon is killed too."""
    harness = build(timeouts=SHORT_SILENCE)
    run_id = harness.python(CHATTY)
    shim = stop_shim(harness, run_id)
    harness.restart()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    wait_until(lambda: not processes.is_alive(shim), bool, "the stopped shim is killed")


def test_stopped_shim_is_found_without_launch_json(build: Build) -> None:
    """Without launch.json, the daemon finds a stopped shim by the lock that it holds, and kills it."""
    harness = build(timeouts=SHORT_SILENCE)
    run_id = harness.python(CHATTY)
    shim = stop_shim(harness, run_id)
    (harness.attempt(run_id) / rundir.LAUNCH).unlink()
    harness.restart()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    wait_until(lambda: not processes.is_alive(shim), bool, "the stopped shim is killed")
    assert harness.pids(run_id) == []


@pytest.mark.slow
def test_no_run_times_out_because_the_daemon_was_suspended(build: Build) -> None:
    """A daemon that was suspended reads waiting heartbeats before it checks timeouts; its runs continue."""
    harness = build(timeouts={"shim_silence_s": 7.0})
    run_id = harness.submit("sleep", "600")
    harness.until(run_id, "EXEC")
    assert harness.process is not None
    before = heartbeat_at(harness, run_id)
    os.kill(harness.process.pid, signal.SIGSTOP)
    signal.sigtimedwait([], 9.0)
    os.kill(harness.process.pid, signal.SIGCONT)
    wait_until(lambda: heartbeat_at(harness, run_id), lambda now: now > before, "a newer heartbeat")
    assert harness.get(run_id)["state"] == "EXEC"


def heartbeat_at(harness: DaemonHarness, run_id: str) -> Any:
    return harness.get(run_id)["last_heartbeat_at"]


def test_stopped_launcher_is_replaced(build: Build) -> None:
    """A stopped launcher is killed after a timeout, and the next launcher gets its outstanding orders."""
    harness = build(timeouts=SHORT_SILENCE)
    harness.allow(Catalogue.LAUNCHER_LOST, Catalogue.LAUNCHER_SILENT)
    run_id = harness.submit("sh", "-c", "exit 3")
    harness.ended(run_id)
    os.kill(harness.launcher_pid(), signal.SIGSTOP)
    second = harness.submit("sh", "-c", "exit 4")
    harness.call("daemon.health")
    assert harness.ended(second)["exit_code"] == 4
