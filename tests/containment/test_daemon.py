"""Containment through the daemon: the reported kind, the enforced limits, the cause of an end, unkillable
processes."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.shim import cgroup
from tests.containment.conftest import need
from tests.containment.groups import living
from tests.harness.building import Build
from tests.harness.waiting import wait_until

EAT = "import time; x = bytearray(600 << 20); x[::4096] = b'1' * len(x[::4096]); time.sleep(1000)"


def config(memory_mb: int) -> dict[str, object]:
    """Return a config of the original form whose program allocates 600 MiB."""
    resources = {"cpus": 1, "memory_mb": memory_mb, "gpus": {"requested": 0, "mandatory": False}}
    return {
        "run_name": "eater", "entry_point": sys.executable, "arguments": ["-c", EAT], "environment": {},
        "resources": resources, "artifacts": {},
    }  # fmt: skip


def test_memory_mb_is_a_limit(build: Build, memory: str) -> None:
    """A run above its resources.memory_mb ends as failed with cause oom and evidence, and `show` reports
    it."""
    harness = build()
    run = harness.ended(harness.submit_config(config(300))["run_id"])
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "oom")
    assert run["cause"]["limit_bytes"] == 300 << 20
    assert run["cause"]["victims"] == 1 and run["cause"]["peak_bytes"] <= 300 << 20
    assert run["limits"]["memory_bytes"] == 300 << 20
    shown = harness.ctl("show", run["run_id"]).stdout
    assert re.search("300 Mi?B, enforced", shown)
    assert "oom: the kernel killed one of its processes: over its memory limit of 300 MiB" in shown


def test_memory_of_a_submit_is_a_limit(build: Build, memory: str) -> None:
    """`run -m SIZE` limits a command; it ends with the cause oom.  Without -m nothing is limited."""
    harness = build()
    done = harness.ctl("-o", "json", "run", "-m", "300M", "--", sys.executable, "-c", EAT)
    run = json.loads(done.stdout)
    harness.run_ids.add(run["run_id"])
    assert run["cause"]["kind"] == "oom" and run["cause"]["limit_bytes"] == 300 << 20
    assert run["memory_mb"] == 300 and "-m is" not in done.stderr
    free = harness.until(harness.submit("sleep", "60"), "EXEC")
    assert free["memory_mb"] is None and free["limits"]["memory_bytes"] is None


def test_memory_of_a_submit_replaces_that_of_the_config(build: Build, memory: str) -> None:
    """-m has precedence over resources.memory_mb of a config."""
    harness = build()
    (harness.home / "config.json").write_text(json.dumps(config(300)))
    run_id = harness.ctl("-o", "name", "submit", "-m", "2G", "-f", "config.json").stdout.strip()
    harness.run_ids.add(run_id)
    assert harness.until(run_id, "EXEC")["limits"]["memory_bytes"] == 2 << 30


def test_the_memory_that_a_worker_estimates_is_no_limit(build: Build, memory: str) -> None:
    """A run of an installed worker has no memory limit, unless the submit asks for one."""
    harness = build()
    described = json.loads(harness.ctl("-o", "json", "workers", "tabular").stdout)
    assert described["capabilities"]["estimated_memory_mb"] > 0

    def submitted(*options: str) -> dict[str, Any]:
        program = ("--worker", "tabular", "--set", "env_id=Taxi-v3", "--set", "episodes=100000000")
        run_id = harness.ctl("-o", "name", "submit", *options, *program).stdout.strip()
        harness.run_ids.add(run_id)
        return harness.until(run_id, "EXEC")

    free = submitted()
    assert free["memory_mb"] is None and free["limits"]["memory_bytes"] is None
    assert submitted("-m", "1G")["limits"]["memory_bytes"] == 1 << 30


def test_memory_off_sets_no_limit(build: Build, memory: str) -> None:
    """With memory = "off" no memory is limited, and `show` reports it."""
    harness = build(containment={"memory": "off"})
    run_id = harness.submit_config(config(300))["run_id"]
    run = harness.until(run_id, "EXEC")
    assert run["limits"]["memory_bytes"] is None
    assert re.search("300 Mi?B, not enforced", harness.ctl("show", run_id).stdout)
    assert "memory" not in harness.call("daemon.health")["containment"]["enforces"]
    done = harness.ctl("-o", "name", "submit", "-m", "300M", "--", "true")
    harness.run_ids.add(done.stdout.strip())
    assert done.returncode == 0 and "-m is" in done.stderr


def test_health_and_the_run_report_the_containment(build: Build) -> None:
    """health reports the containment of the machine, and the run object that of the run; process-group is
    always possible."""
    harness = build(containment={"mode": "process-group"})
    run = harness.until(harness.submit("sleep", "60"), "EXEC")
    assert run["containment"] == "process-group"
    assert run["limits"] == {"memory_bytes": None, "tasks": None, "cpu_weight": None}
    assert harness.call("daemon.health")["containment"] == {"holds": "process-group", "enforces": []}


@pytest.fixture
def freezer(own: dict[str, str]) -> Iterator[Path]:
    """A version-1 freezer outside of mosaicd: a process that is frozen in it does not act on SIGKILL."""
    need("freezer" in own and os.access(own["freezer"], os.W_OK), "no writable version-1 freezer")
    group = Path(own["freezer"]) / f"drill-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_until(lambda: cgroup.remove(str(group)), bool, "the freezer is empty")


def test_an_unkillable_run_keeps_its_slot(build: Build, freezer: Path) -> None:
    """A run that SIGKILL does not end is FAULT and `unkillable`, its reason has the pid, and it keeps its
    slot until the process ends."""
    harness = build(cpus={"slots": 1}, timeouts={"unkillable_s": 0.3, "grace_s": 0.1})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id = harness.submit("sleep", "1000")
    pid = harness.until(run_id, "EXEC")["pid"]
    (freezer / "cgroup.procs").write_text(str(pid))
    (freezer / "freezer.state").write_text("FROZEN")
    wait_until(lambda: (freezer / "freezer.state").read_text(), lambda text: text == "FROZEN\n", "frozen")
    waiting = harness.submit("true")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    run = wait_until(
        lambda: harness.get(run_id), lambda run: "unkillable" in str(run["reason"]), "it is reported"
    )
    assert run["state"] == "FAULT" and str(pid) in run["reason"]
    assert "unkillable" in harness.ctl("show", run_id).stdout
    assert harness.get(waiting)["state"] == "INIT"
    assert living([pid])
    (freezer / "freezer.state").write_text("THAWED")
    assert harness.ended(run_id)["reason"] is None
    assert harness.ended(waiting)["outcome"] == "succeeded"
    assert "unkillable" in [event["kind"] for event in harness.events(run_id)]


def test_a_killed_shim_leaves_no_process(build: Build) -> None:
    """After kill -9 of a shim, also a process without marker and kin is ended; the cause is shim_lost."""
    harness = build()
    harness.allow(Catalogue.SHIM_LOST)
    hide = "(setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = harness.submit("sh", "-c", hide)
    run = harness.until(run_id, "EXEC")
    need(run["containment"] != "process-group", "no control groups are available")
    wait_until(lambda: harness.stdout(run_id), bool, "the hidden pid is printed")
    hidden = int(harness.stdout(run_id))
    [shim] = harness.shims()
    os.kill(shim, 9)
    ended = harness.ended(run_id)
    assert ended["cause"]["kind"] == "shim_lost"
    assert not living([hidden])


def test_restart_of_the_daemon_keeps_the_groups(build: Build) -> None:
    """After kill -9, the next daemon finds its runs in their groups and stops all their processes."""
    harness = build()
    hide = "(setsid env -i sh -c 'echo $$; while :; do sleep 0.2; done' &); sleep 1000"
    run_id = harness.submit("sh", "-c", hide)
    harness.until(run_id, "EXEC")
    wait_until(lambda: harness.stdout(run_id), bool, "the hidden pid is printed")
    harness.restart()
    harness.call("run.stop", run_id=run_id, grace_s=0.2)
    assert harness.ended(run_id)["outcome"] == "cancelled"
    assert not living([int(harness.stdout(run_id))])
