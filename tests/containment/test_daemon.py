"""Containment as a user meets it: what holds a run, what is enforced, why it ended, what cannot be killed."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.log import Catalogue
from mosaicd.shim import cgroup
from tests.containment.conftest import need
from tests.containment.groups import living
from tests.harness.building import Build
from tests.harness.waiting import wait_until

EAT = "import time; x = bytearray(600 << 20); x[::4096] = b'1' * len(x[::4096]); time.sleep(1000)"


def config(memory_mb: int) -> dict[str, object]:
    """A training config of the original form, whose program is a plain command that eats 600 MiB."""
    resources = {"cpus": 1, "memory_mb": memory_mb, "gpus": {"requested": 0, "mandatory": False}}
    return {
        "run_name": "eater", "entry_point": sys.executable, "arguments": ["-c", EAT], "environment": {},
        "resources": resources, "artifacts": {},
    }  # fmt: skip


def test_memory_mb_is_a_limit(build: Build, memory: str) -> None:
    """Over its resources.memory_mb a run ends failed, cause oom, with evidence; show says what it was."""
    harness = build()
    run = harness.ended(harness.submit_config(config(300))["run_id"])
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "oom")
    assert run["cause"]["limit_bytes"] == 300 << 20
    assert run["cause"]["victims"] == 1 and run["cause"]["peak_bytes"] <= 300 << 20
    assert run["limits"]["memory_bytes"] == 300 << 20
    shown = harness.ctl("show", run["run_id"]).stdout
    assert re.search("300 Mi?B, enforced", shown)
    assert "oom: the kernel killed one of its processes: over its memory limit of 300 MiB" in shown


def test_memory_can_be_a_word(build: Build, memory: str) -> None:
    """With memory = "off" nothing is limited, and show says so."""
    harness = build(containment={"memory": "off"})
    run_id = harness.submit_config(config(300))["run_id"]
    run = harness.until(run_id, "EXEC")
    assert run["limits"]["memory_bytes"] is None
    assert re.search("300 Mi?B, not enforced", harness.ctl("show", run_id).stdout)


def test_what_holds_is_said(build: Build) -> None:
    """health says what the machine has, the run object what holds the run; process-group always can be."""
    harness = build(containment={"mode": "process-group"})
    run = harness.until(harness.submit("sleep", "60"), "EXEC")
    assert run["containment"] == "process-group"
    assert run["limits"] == {"memory_bytes": None, "tasks": None, "cpu_weight": None}
    assert harness.call("daemon.health")["containment"] == {"holds": "process-group", "enforces": []}


@pytest.fixture
def ice(own: dict[str, str]) -> Iterator[Path]:
    """A version-1 freezer outside of mosaicd: a process frozen in it does not act on KILL."""
    need("freezer" in own and os.access(own["freezer"], os.W_OK), "no version-1 freezer here")
    group = Path(own["freezer"]) / f"drill-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_until(lambda: cgroup.remove(str(group)), bool, "the freezer is empty")


def test_what_cannot_be_killed_keeps_its_slot(build: Build, ice: Path) -> None:
    """Where KILL does not reach: FAULT, `unkillable`, the pid in the reason, the slot held, until it goes."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id = harness.submit("sleep", "1000")
    pid = harness.until(run_id, "EXEC")["pid"]
    (ice / "cgroup.procs").write_text(str(pid))
    (ice / "freezer.state").write_text("FROZEN")
    wait_until(lambda: (ice / "freezer.state").read_text(), lambda text: text == "FROZEN\n", "it is frozen")
    waiting = harness.submit("true")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    run = wait_until(
        lambda: harness.get(run_id), lambda run: "unkillable" in str(run["reason"]), "it is said"
    )
    assert run["state"] == "FAULT" and str(pid) in run["reason"]
    assert "unkillable" in harness.ctl("show", run_id).stdout
    assert harness.get(waiting)["state"] == "INIT"
    assert living([pid])
    (ice / "freezer.state").write_text("THAWED")
    assert harness.ended(run_id)["reason"] is None
    assert harness.ended(waiting)["outcome"] == "succeeded"
    assert "unkillable" in [event["kind"] for event in harness.events(run_id)]


def test_a_shim_that_is_killed_leaves_nothing(build: Build) -> None:
    """kill -9 of a shim whose run has hidden a process: shim_lost, and that process is gone with it."""
    harness = build()
    harness.allow(Catalogue.SHIM_LOST)
    hide = "(setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = harness.submit("sh", "-c", hide)
    run = harness.until(run_id, "EXEC")
    need(run["containment"] != "process-group", "no control groups here")
    wait_until(lambda: harness.stdout(run_id), bool, "it is hidden")
    hidden = int(harness.stdout(run_id))
    [shim] = harness.shims()
    os.kill(shim, 9)
    ended = harness.ended(run_id)
    assert ended["cause"]["kind"] == "shim_lost"
    assert not living([hidden])


def test_restart_of_the_daemon_keeps_the_groups(build: Build) -> None:
    """A daemon that is killed and comes back finds its runs in their groups, counts them, and ends them."""
    harness = build()
    hide = "(setsid env -i sh -c 'echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = harness.submit("sh", "-c", hide)
    harness.until(run_id, "EXEC")
    wait_until(lambda: harness.stdout(run_id), bool, "it is hidden")
    harness.restart()
    harness.call("run.stop", run_id=run_id, grace_s=0.2)
    assert harness.ended(run_id)["outcome"] == "cancelled"
    assert not living([int(harness.stdout(run_id))])
