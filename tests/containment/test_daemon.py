"""Containment as a user meets it: what holds a run, what is enforced, why it ended, what cannot be killed."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosaicd.shim import cgroup
from tests.containment.conftest import need
from tests.containment.groups import living
from tests.daemon.house import House, eventually

EAT = "import time; x = bytearray(600 << 20); x[::4096] = b'1' * len(x[::4096]); time.sleep(1000)"


def config(memory_mb: int) -> dict[str, object]:
    """A training config of the original form, whose program is a plain command that eats 600 MiB."""
    resources = {"cpus": 1, "memory_mb": memory_mb, "gpus": {"requested": 0, "mandatory": False}}
    return {
        "run_name": "eater", "entry_point": sys.executable, "arguments": ["-c", EAT], "environment": {},
        "resources": resources, "artifacts": {},
    }  # fmt: skip


def test_memory_mb_is_a_limit(build: Callable[..., House], memory: str) -> None:
    """Over its resources.memory_mb a run ends failed, cause oom, with evidence; show says what it was."""
    house = build()
    run = house.ended(house.submit_config(config(300))["run_id"])
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "oom")
    assert run["cause"]["limit_bytes"] == 300 << 20
    assert run["cause"]["victims"] == 1 and run["cause"]["peak_bytes"] <= 300 << 20
    assert run["limits"]["memory_bytes"] == 300 << 20
    shown = house.ctl("show", run["run_id"]).stdout
    assert re.search("300 Mi?B, enforced", shown)
    assert "oom: the kernel killed one of its processes: over its memory limit of 300 MiB" in shown


def test_memory_can_be_a_word(build: Callable[..., House], memory: str) -> None:
    """With memory = "off" nothing is limited, and show says so."""
    house = build(containment={"memory": "off"})
    run_id = house.submit_config(config(300))["run_id"]
    run = house.until(run_id, "EXEC")
    assert run["limits"]["memory_bytes"] is None
    assert re.search("300 Mi?B, not enforced", house.ctl("show", run_id).stdout)


def test_what_holds_is_said(build: Callable[..., House]) -> None:
    """health says what the machine has, the run object what holds the run; process-group always can be."""
    house = build(containment={"mode": "process-group"})
    run = house.until(house.submit("sleep", "60"), "EXEC")
    assert run["containment"] == "process-group"
    assert run["limits"] == {"memory_bytes": None, "tasks": None, "cpu_weight": None}
    assert house.call("daemon.health")["containment"] == {"holds": "process-group", "enforces": []}


@pytest.fixture
def ice(own: dict[str, str]) -> Iterator[Path]:
    """A version-1 freezer of somebody else's: what is frozen in there does not even act on KILL."""
    need("freezer" in own and os.access(own["freezer"], os.W_OK), "no version-1 freezer here")
    group = Path(own["freezer"]) / f"drill-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    eventually(lambda: cgroup.remove(str(group)), bool, "the freezer is empty")


def test_what_cannot_be_killed_keeps_its_slot(build: Callable[..., House], ice: Path) -> None:
    """Where KILL does not reach: FAULT, `unkillable`, the pid in the reason, the slot held, until it goes."""
    house = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    house.allowed_warnings += ["cannot be killed", "unkillable", "does not end its tree"]
    run_id = house.submit("sleep", "1000")
    pid = house.until(run_id, "EXEC")["pid"]
    (ice / "cgroup.procs").write_text(str(pid))
    (ice / "freezer.state").write_text("FROZEN")
    eventually(lambda: (ice / "freezer.state").read_text(), lambda text: text == "FROZEN\n", "it is frozen")
    waiting = house.submit("true")
    house.call("run.stop", run_id=run_id, grace_s=0)
    run = eventually(lambda: house.get(run_id), lambda run: "unkillable" in str(run["reason"]), "it is said")
    assert run["state"] == "FAULT" and str(pid) in run["reason"]
    assert "unkillable" in house.ctl("show", run_id).stdout
    assert house.get(waiting)["state"] == "INIT"
    assert living([pid])
    (ice / "freezer.state").write_text("THAWED")
    assert house.ended(run_id)["reason"] is None
    assert house.ended(waiting)["outcome"] == "succeeded"
    assert "unkillable" in [event["kind"] for event in house.events(run_id)]


def test_a_shim_that_is_killed_leaves_nothing(build: Callable[..., House]) -> None:
    """kill -9 of a shim whose run has hidden a process: shim_lost, and that process is gone with it."""
    house = build()
    house.allowed_warnings += ["cause=shim_lost", "shim_lost"]
    hide = "(setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = house.submit("sh", "-c", hide)
    run = house.until(run_id, "EXEC")
    need(run["containment"] != "process-group", "no control groups here")
    eventually(lambda: house.stdout(run_id), bool, "it is hidden")
    hidden = int(house.stdout(run_id))
    [shim] = house.shims()
    os.kill(shim, 9)
    ended = house.ended(run_id)
    assert ended["cause"]["kind"] == "shim_lost"
    assert not living([hidden])


def test_restart_of_the_daemon_keeps_the_groups(build: Callable[..., House]) -> None:
    """A daemon that is killed and comes back finds its runs in their groups, counts them, and ends them."""
    house = build()
    hide = "(setsid env -i sh -c 'echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = house.submit("sh", "-c", hide)
    house.until(run_id, "EXEC")
    eventually(lambda: house.stdout(run_id), bool, "it is hidden")
    house.restart()
    house.call("run.stop", run_id=run_id, grace_s=0.2)
    assert house.ended(run_id)["outcome"] == "cancelled"
    assert not living([int(house.stdout(run_id))])
