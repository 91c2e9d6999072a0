"""A worker in the kernel's uninterruptible wait (state D): neither TERM nor KILL ends it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosaicd.shim import containment
from tests.containment.fuse import HoldingServer
from tests.daemon.house import House, eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HoldingServer]:
    """A file server that never answers; skip where nobody may mount one."""
    place = tmp_path / "mount"
    place.mkdir()
    try:
        server = HoldingServer(place)
    except OSError as error:
        pytest.skip(f"no file system of our own can be mounted here: {error}")
    yield server
    server.close()


def state_of(pid: int) -> str:
    process = containment.look_at(pid)
    return process.state if process else "gone"


def test_a_stop_waits_for_what_waits_in_the_kernel(
    build: Callable[..., House], server: HoldingServer
) -> None:
    """Its slot stays taken until it is gone, show names it, and then the run ends, by the KILL of before."""
    house = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    house.allowed_warnings += ["cannot be killed", "unkillable", "does not end its tree"]
    run_id = house.submit("cat", str(server.path))
    pid = house.until(run_id, "EXEC")["pid"]
    assert server.has_somebody.wait(60)
    waiting = house.submit("true")
    house.call("run.stop", run_id=run_id, grace_s=0)
    run = eventually(lambda: house.get(run_id), lambda run: run["state"] == "FAULT", "it is given up")
    run = eventually(lambda: house.get(run_id), lambda run: run["reason"], "it is said")
    assert str(pid) in run["reason"]
    shown = house.ctl("show", run_id).stdout
    assert "unkillable" in shown and str(pid) in shown
    assert house.get(waiting)["state"] == "INIT"
    assert state_of(pid) == "D"
    server.close()
    ended = house.ended(run_id)
    assert (ended["cause"]["kind"], ended["cause"]["pids"], ended["signal"]) == ("unkillable", [pid], 9)
    assert house.ended(waiting)["outcome"] == "succeeded"


def test_a_daemon_that_comes_back_finds_it_waiting(
    build: Callable[..., House], server: HoldingServer
) -> None:
    """After kill -9 of the daemon, and of the shim, the slot is still taken until the process is gone."""
    house = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    house.allowed_warnings += ["cannot be killed", "unkillable", "does not end its tree", "shim_lost"]
    run_id = house.submit("cat", str(server.path))
    pid = house.until(run_id, "EXEC")["pid"]
    assert server.has_somebody.wait(60)
    waiting = house.submit("true")
    [shim] = house.shims()
    house.kill()
    os.kill(shim, 9)
    house.start()
    run = eventually(lambda: house.get(run_id), lambda run: str(pid) in (run["reason"] or ""), "it is said")
    assert run["state"] == "FAULT"
    assert house.get(waiting)["state"] == "INIT"
    server.close()
    assert house.ended(run_id)["cause"]["kind"] == "shim_lost"
    assert house.ended(waiting)["outcome"] == "succeeded"
