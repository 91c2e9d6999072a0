"""A shim that lives and does nothing: stopped by somebody, or hanging.  Nobody waits for it for ever."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosaicd.protocol import rundir
from tests.daemon.house import House, eventually

#: Short for a test, and long for a machine that stalls; the runs are never silent themselves.
QUICK = {"shim_silence_s": 3.0}
WEDGED = "lives and has said nothing"
TALKS = "import time\nwhile True: print('on and on', flush=True); time.sleep(0.1)"


def shim_of(house: House, run_id: str) -> int:
    """The parent of the run's worker."""
    status = Path(f"/proc/{house.get(run_id)['pid']}/status").read_text()
    found = re.search(r"^PPid:\s(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])


def wedge(house: House, run_id: str) -> int:
    house.allowed_warnings += [WEDGED, " is gone ", "the launcher"]  # which has no more time than a shim
    house.until(run_id, "EXEC")
    pid = shim_of(house, run_id)
    os.kill(pid, signal.SIGSTOP)
    return pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_stopped_shim_is_taken_for_lost(build: Callable[..., House]) -> None:
    """A shim that is stopped is killed after `shim_silence_s`, its tree ended, its slot free; shim_lost."""
    house = build(timeouts=QUICK)
    run_id = house.python(TALKS)
    shim = wedge(house, run_id)
    run = house.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("interrupted", "shim_lost")
    assert "said nothing" in run["cause"]["reason"]
    assert house.pids(run_id) == []
    eventually(lambda: is_gone(shim), bool, "the stopped shim is ended")
    assert house.call("daemon.health")["cpus"]["free"] == 2


@pytest.mark.slow
def test_a_stopped_shim_is_retried_elsewhere(build: Callable[..., House]) -> None:
    """shim_lost is an infrastructure cause: a run with retries gets another attempt, with another shim."""
    house = build(timeouts=QUICK)
    run_id = house.python(TALKS, retries=1)
    wedge(house, run_id)
    eventually(lambda: house.get(run_id), lambda run: run["attempt"] == 2 and run["state"] == "EXEC", "2nd")
    assert len(house.pids(run_id)) == 1
    house.call("run.stop", run_id=run_id)
    assert house.ended(run_id)["outcome"] == "cancelled"


@pytest.mark.slow
def test_stop_of_a_run_with_a_stopped_shim(build: Callable[..., House]) -> None:
    """A stop whose shim cannot hear it is carried out all the same."""
    house = build(timeouts=QUICK)
    run_id = house.python(TALKS)
    wedge(house, run_id)
    house.call("run.stop", run_id=run_id, grace_s=0)
    assert house.ended(run_id)["state"] == "TERM"
    assert house.pids(run_id) == []


def test_a_shim_that_was_stopped_before_the_restart(build: Callable[..., House]) -> None:
    """A shim that holds its lock and never registers with the new daemon is given up as well."""
    house = build(timeouts=QUICK)
    run_id = house.python(TALKS)
    shim = wedge(house, run_id)
    house.restart()
    assert house.ended(run_id)["cause"]["kind"] == "shim_lost"
    eventually(lambda: is_gone(shim), bool, "the stopped shim is ended")


def test_a_shim_that_nothing_names(build: Callable[..., House]) -> None:
    """Without launch.json, and without a word of its own, who holds the attempt is still found, and ended."""
    house = build(timeouts=QUICK)
    run_id = house.python(TALKS)
    shim = wedge(house, run_id)
    (house.attempt(run_id) / rundir.LAUNCH).unlink()
    house.restart()
    assert house.ended(run_id)["cause"]["kind"] == "shim_lost"
    eventually(lambda: is_gone(shim), bool, "the stopped shim is ended")
    assert house.pids(run_id) == []


@pytest.mark.slow
def test_a_stopped_daemon_gives_nobody_up(build: Callable[..., House]) -> None:
    """A daemon that stood still itself hears first and judges then: its runs go on."""
    house = build(timeouts={"shim_silence_s": 7.0})
    run_id = house.submit("sleep", "600")
    house.until(run_id, "EXEC")
    assert house.process is not None
    before = progress_of(house, run_id)
    os.kill(house.process.pid, signal.SIGSTOP)
    signal.sigtimedwait([], 9.0)
    os.kill(house.process.pid, signal.SIGCONT)
    eventually(lambda: progress_of(house, run_id), lambda now: now > before, "a beat comes through")
    assert house.get(run_id)["state"] == "EXEC"


def progress_of(house: House, run_id: str) -> Any:
    return house.get(run_id)["last_heartbeat_at"]


def test_a_stopped_launcher_is_replaced(build: Callable[..., House]) -> None:
    """A launcher that stands still is ended after a while, and the next one gets the orders it had."""
    house = build(timeouts=QUICK)
    house.allowed_warnings += ["the launcher"]
    run_id = house.submit("sh", "-c", "exit 3")
    house.ended(run_id)
    os.kill(house.launcher_pid(), signal.SIGSTOP)
    second = house.submit("sh", "-c", "exit 4")
    house.call("daemon.health")
    assert house.ended(second)["exit_code"] == 4
