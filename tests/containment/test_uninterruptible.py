"""A worker in an uninterruptible wait of the kernel (state D): neither SIGTERM nor SIGKILL ends it."""

import os

from mosaicd import procfs
from mosaicd.log import Catalogue
from tests.containment.fuse import HoldingServer
from tests.harness.building import Build
from tests.harness.waiting import wait_until


def state_of(pid: int) -> str:
    """Return the state letter of a process, or "ended"."""
    process = procfs.read_process(pid)
    return process.state if process else "ended"


def test_a_stopped_run_in_state_d_keeps_its_slot(build: Build, server: HoldingServer) -> None:
    """A stopped run in state D keeps its slot, and `show` names its pid; the run ends when the process
    ends."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id = harness.submit("cat", str(server.path))
    pid = harness.until(run_id, "EXEC")["pid"]
    assert server.is_held.wait(60)
    waiting = harness.submit("true")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    run = wait_until(lambda: harness.get(run_id), lambda run: run["state"] == "FAULT", "the run is FAULT")
    run = wait_until(lambda: harness.get(run_id), lambda run: run["reason"], "the run has a reason")
    assert str(pid) in run["reason"]
    shown = harness.ctl("show", run_id).stdout
    assert "unkillable" in shown and str(pid) in shown
    assert harness.get(waiting)["state"] == "INIT"
    assert state_of(pid) == "D"
    server.close()
    ended = harness.ended(run_id)
    assert (ended["cause"]["kind"], ended["cause"]["pids"], ended["signal"]) == ("unkillable", [pid], 9)
    assert harness.ended(waiting)["outcome"] == "succeeded"


def test_a_restarted_daemon_waits_for_a_run_in_state_d(build: Build, server: HoldingServer) -> None:
    """After kill -9 of the daemon and of the shim, a run in state D keeps its slot until the process ends."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK, Catalogue.SHIM_LOST)
    run_id = harness.submit("cat", str(server.path))
    pid = harness.until(run_id, "EXEC")["pid"]
    assert server.is_held.wait(60)
    waiting = harness.submit("true")
    [shim] = harness.shims()
    harness.kill()
    os.kill(shim, 9)
    harness.start()
    run = wait_until(lambda: harness.get(run_id), lambda run: str(pid) in (run["reason"] or ""), "reported")
    assert run["state"] == "FAULT"
    assert harness.get(waiting)["state"] == "INIT"
    server.close()
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    assert harness.ended(waiting)["outcome"] == "succeeded"


def test_a_hung_file_system_does_not_hang_the_client(build: Build, server: HoldingServer) -> None:
    """submit of a program on a file system that does not answer warns after 2 s and is accepted; nothing
    waits for the process that looks, not even the reader of the output."""
    harness = build()
    done = harness.ctl("submit", "--hold", "--", f"{server.path}/program", timeout_s=30)
    assert server.is_held.is_set()
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    [run] = harness.call("run.list")["runs"]
    harness.call("run.stop", run_id=run["run_id"])
