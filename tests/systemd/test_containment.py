"""Runs are in a delegated scope: the kernel contains them, and every restart of the service works."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containment.groups import BOMB
from tests.harness.waiting import wait_until
from tests.systemd.machine import HOME, Machine, UserService

pytestmark = [pytest.mark.systemd, pytest.mark.root]

#: Starts a process without marker and kin that ignores SIGTERM and prints its pid.
HIDDEN = "(setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.2; done' &); sleep 1000"


def group_of(service: UserService, pid: int) -> str:
    """Return the group of a process as it is seen inside."""
    text = service.machine.run("cat", f"/proc/{pid}/cgroup").stdout
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


class Contained:
    """A service with one run that has started a hidden process."""

    def __init__(self, service: UserService) -> None:
        self.service = service
        service.install()
        service.systemctl("start", "mosaicd")
        self.run_id = service.submit("--", "sh", "-c", HIDDEN)
        self.run = service.wait_state(self.run_id, "EXEC")
        log = service.machine.root / f"{self.run['run_dir']}/attempt-1/stdout.log".lstrip("/")
        self.hidden = int(
            wait_until(log.read_text, lambda text: text.endswith("\n"), "the hidden pid is printed", 60)
        )

    def group_of(self, pid: int) -> str:
        return group_of(self.service, pid)

    def is_alive(self, pid: int) -> bool:
        return any(line.split()[0] == str(pid) for line in self.service.processes())

    def scopes(self) -> list[str]:
        """Return the names of the scopes for runs."""
        listed = self.service.systemctl("list-units", "--plain", "--no-legend", "mosaicd-runs-*.scope").stdout
        return [line.split()[0] for line in listed.splitlines()]

    def check_end(self) -> None:
        """Stop the run and check that the hidden process has ended."""
        self.service.ctl_output("stop", "--grace", "0.2s", self.run_id)
        self.service.wait_state(self.run_id, "TERM")
        assert not self.is_alive(self.hidden)


@pytest.fixture
def contained(service: UserService) -> Contained:
    """A started service, and a run in EXEC with a hidden process."""
    return Contained(service)


@pytest.fixture(params=["unified", "hybrid"])
def on_each(request: pytest.FixtureRequest) -> Contained:
    """The same on both kinds of machine."""
    name = "service" if request.param == "unified" else "hybrid_service"
    return Contained(request.getfixturevalue(name))


def containment_of(service: UserService) -> dict[str, Any]:
    """Return the containment that health reports."""
    containment = service.ctl_json("health")["containment"]
    assert isinstance(containment, dict)
    return containment


def test_runs_live_in_a_scope(on_each: Contained) -> None:
    """Shim, worker and hidden process are in a scope of the user's manager; the daemon is in its service."""
    group = on_each.group_of(on_each.run["pid"])
    assert re.search(r"/user@\d+\.service/.*mosaicd-runs-[^/]*\.scope/run-[^/]*/run$", group), group
    assert on_each.group_of(on_each.hidden) == group
    assert on_each.group_of(on_each.service.main_pid).endswith("/mosaicd.service")
    assert on_each.run["containment"] == containment_of(on_each.service)["holds"] == "cgroup-v2"
    on_each.check_end()


def test_restart_with_a_live_run(on_each: Contained) -> None:
    """After a restart and after kill -9, the service starts; the run stays contained and can be stopped."""
    service, before = on_each.service, on_each.service.main_pid
    service.systemctl("restart", "mosaicd")
    wait_until(lambda: service.main_pid, lambda pid: pid not in (0, before), "another daemon", 60)
    again = service.main_pid
    service.machine.run("kill", "-9", str(again))
    wait_until(lambda: service.main_pid, lambda pid: pid not in (0, again), "another daemon", 60)
    assert service.run_object(on_each.run_id)["state"] == "EXEC"
    assert on_each.is_alive(on_each.hidden)
    on_each.check_end()


def test_an_orphan_of_another_launcher(contained: Contained) -> None:
    """If the shim is killed while the service is stopped, the next launcher finds and ends the hidden process
    in the old scope."""
    service = contained.service
    service.systemctl("stop", "mosaicd.socket", "mosaicd.service")

    def forked() -> list[str]:
        return [line.split()[0] for line in service.processes() if "mosaicd.launcher" in line]

    [shim] = wait_until(
        forked, lambda pids: len(pids) == 1, "one shim", 60
    )  # the spare one leaves with its launcher
    service.machine.run("kill", "-9", shim)
    service.systemctl("start", "mosaicd")
    ended = service.wait_state(contained.run_id, "TERM")
    assert ended["cause"]["kind"] == "shim_lost"
    assert not contained.is_alive(contained.hidden)


def test_a_stopped_service_leaves_no_scope(contained: Contained) -> None:
    """A stopped service without runs leaves no scope."""
    contained.check_end()
    contained.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    wait_until(contained.scopes, lambda scopes: not scopes, "the scope is removed", 60)


@pytest.fixture
def no_bus(machine: Machine) -> Iterator[None]:
    """A machine where the daemon cannot request a scope from the manager."""
    machine.run("mount", "--bind", "/dev/null", "/usr/bin/busctl", root=True)
    yield
    machine.run("umount", "/usr/bin/busctl", root=True)


def test_runs_use_the_services_group_without_a_scope(no_bus: None, service: UserService) -> None:
    """If no scope is available, runs are below the service's delegated group, and restarts work."""
    service.install()
    service.systemctl("start", "mosaicd")
    run_id = service.submit("--", "sleep", "1000")
    run = service.wait_state(run_id, "EXEC")
    assert run["containment"] == "cgroup-v2"
    group = service.machine.run("cat", f"/proc/{run['pid']}/cgroup").stdout
    assert re.search(r"/mosaicd\.service/mosaicd/run-[^/]*/run\n", group), group
    before = service.main_pid
    service.systemctl("restart", "mosaicd")
    wait_until(lambda: service.main_pid, lambda pid: pid not in (0, before), "another daemon", 60)
    now = service.run_object(run_id)
    assert (now["state"], now["pid"]) == ("EXEC", run["pid"])
    service.ctl_output("stop", run_id)
    service.wait_state(run_id, "TERM")


EAT = "x = bytearray(500 << 20); x[::4096] = b'1' * len(x[::4096])"


@pytest.fixture
def limited(service: UserService) -> UserService:
    """A started service with delegated controllers; the test is skipped if the manager has none."""
    service.install()
    service.configure("[cpus]\nslots = 4\n[containment]\ntasks = 64\n")
    service.systemctl("start", "mosaicd")
    enforced = wait_until(lambda: containment_of(service), bool, "it is reported", 60)["enforces"]
    if not {"memory", "pids"} <= set(enforced):
        pytest.skip("no controllers of version 2 are available")
    return service


def test_memory_is_limited_in_a_scope(limited: UserService) -> None:
    """A run above its memory_mb is ended by the kernel and is `oom`; `show` reports its containment.

    The manager does not end the scope for it, so other runs continue.
    """
    resources = {"cpus": 1, "memory_mb": 256, "gpus": {"requested": 0, "mandatory": False}}
    config = {
        "run_name": "eater", "entry_point": sys.executable, "arguments": ["-c", EAT], "environment": {},
        "resources": resources, "artifacts": {},
    }  # fmt: skip
    (limited.home / "config.json").write_text(json.dumps(config))
    limited.give_to_user(limited.home / "config.json")
    neighbour = limited.submit("--", "sleep", "1000")
    limited.wait_state(neighbour, "EXEC")
    run_id = limited.ctl_output("-o", "name", "submit", "-f", f"{HOME}/config.json").strip()
    run = limited.wait_state(run_id, "TERM")
    assert (run["outcome"], run["cause"]["kind"], run["containment"]) == ("failed", "oom", "cgroup-v2")
    assert (run["cause"]["victims"], run["cause"]["limit_bytes"]) == (1, 256 << 20)
    shown = limited.ctl_output("show", run_id)
    assert "over its memory limit of 256 MiB" in shown
    assert re.search(r"containment +cgroup-v2: memory 256 Mi?B, 64 tasks", shown), shown
    assert limited.run_object(neighbour)["state"] == "EXEC"
    limited.ctl_output("stop", neighbour)
    limited.wait_state(neighbour, "TERM")


def test_a_fork_bomb_in_a_scope(limited: UserService) -> None:
    """A fork bomb has exactly the allowed number of tasks, and a stop ends it."""
    run_id = limited.submit("--", sys.executable, "-c", BOMB)
    run = limited.wait_state(run_id, "EXEC")
    group = group_of(limited, run["pid"])
    directory = limited.machine.root / f"sys/fs/cgroup{group}"
    wait_until(
        lambda: int((directory / "pids.current").read_text()), lambda count: count == 64, "64 tasks", 60
    )
    limited.ctl_output("stop", "--grace", "0s", run_id)
    limited.wait_state(run_id, "TERM")
    wait_until(directory.parent.exists, lambda exists: not exists, "the control group is removed", 60)
