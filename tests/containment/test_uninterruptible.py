"""A worker in the kernel's uninterruptible wait (state D): neither TERM nor KILL ends it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd import procfs
from mosaicd.log import Catalogue
from tests.containment.fuse import HoldingServer
from tests.harness.building import Build
from tests.harness.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HoldingServer]:
    """A file server that never answers; skipped if it cannot be mounted."""
    place = tmp_path / "mount"
    place.mkdir()
    try:
        server = HoldingServer(place)
    except OSError as error:
        pytest.skip(f"no file system of our own can be mounted here: {error}")
    yield server
    server.close()


def state_of(pid: int) -> str:
    process = procfs.read_process(pid)
    return process.state if process else "gone"


def test_a_stop_waits_for_what_waits_in_the_kernel(build: Build, server: HoldingServer) -> None:
    """Its slot stays taken until it is gone, show names it, and then the run ends, by the KILL of before."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id = harness.submit("cat", str(server.path))
    pid = harness.until(run_id, "EXEC")["pid"]
    assert server.has_somebody.wait(60)
    waiting = harness.submit("true")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    run = wait_until(lambda: harness.get(run_id), lambda run: run["state"] == "FAULT", "it is given up")
    run = wait_until(lambda: harness.get(run_id), lambda run: run["reason"], "it is said")
    assert str(pid) in run["reason"]
    shown = harness.ctl("show", run_id).stdout
    assert "unkillable" in shown and str(pid) in shown
    assert harness.get(waiting)["state"] == "INIT"
    assert state_of(pid) == "D"
    server.close()
    ended = harness.ended(run_id)
    assert (ended["cause"]["kind"], ended["cause"]["pids"], ended["signal"]) == ("unkillable", [pid], 9)
    assert harness.ended(waiting)["outcome"] == "succeeded"


def test_a_daemon_that_comes_back_finds_it_waiting(build: Build, server: HoldingServer) -> None:
    """After kill -9 of the daemon, and of the shim, the slot is still taken until the process is gone."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK, Catalogue.SHIM_LOST)
    run_id = harness.submit("cat", str(server.path))
    pid = harness.until(run_id, "EXEC")["pid"]
    assert server.has_somebody.wait(60)
    waiting = harness.submit("true")
    [shim] = harness.shims()
    harness.kill()
    os.kill(shim, 9)
    harness.start()
    run = wait_until(lambda: harness.get(run_id), lambda run: str(pid) in (run["reason"] or ""), "it is said")
    assert run["state"] == "FAULT"
    assert harness.get(waiting)["state"] == "INIT"
    server.close()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    assert harness.ended(waiting)["outcome"] == "succeeded"
