"""Runs live in a delegated scope of their own: held by the kernel, and no hindrance to any restart."""

import re
from typing import Any

import pytest

from tests.systemd.machine import UserService, eventually

pytestmark = [pytest.mark.systemd, pytest.mark.root]

#: A process without marker and kin, deaf to TERM; prints its pid.
HIDDEN = "(setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.2; done' &); sleep 1000"


class Contained:
    """A service with one run that has hidden a process."""

    def __init__(self, service: UserService) -> None:
        self.service = service
        service.install()
        service.systemctl("start", "mosaicd")
        self.run_id = service.submit("--", "sh", "-c", HIDDEN)
        self.run = service.wait_state(self.run_id, "EXEC")
        log = service.machine.root / f"{self.run['run_dir']}/attempt-1/stdout.log".lstrip("/")
        self.hidden = int(eventually(log.read_text, lambda text: text.endswith("\n")))

    def group_of(self, pid: int) -> str:
        """Return the group of a process as it is seen inside."""
        text = self.service.machine.run("cat", f"/proc/{pid}/cgroup").stdout
        return next(line[3:] for line in text.splitlines() if line.startswith("0::"))

    def is_alive(self, pid: int) -> bool:
        return any(line.split()[0] == str(pid) for line in self.service.processes())

    def scopes(self) -> list[str]:
        listed = self.service.systemctl("list-units", "--plain", "--no-legend", "mosaicd-runs-*.scope").stdout
        return [line.split()[0] for line in listed.splitlines()]

    def check_end(self) -> None:
        """A stop ends all of it, and the scope goes with the service."""
        self.service.said("stop", "--grace", "0.2s", self.run_id)
        self.service.wait_state(self.run_id, "TERM")
        assert not self.is_alive(self.hidden)


@pytest.fixture
def contained(service: UserService) -> Contained:
    """A started service, and a run in EXEC that has hidden a process."""
    return Contained(service)


def holds(service: UserService) -> dict[str, Any]:
    found = service.answer("health")["containment"]
    assert isinstance(found, dict)
    return found


def test_runs_live_in_a_scope(contained: Contained) -> None:
    """Shim, worker and what it hid are in a scope of the user's manager; the daemon stays in its service."""
    group = contained.group_of(contained.run["pid"])
    assert re.search(r"/user@\d+\.service/.*mosaicd-runs-[^/]*\.scope/run-[^/]*/run$", group), group
    assert contained.group_of(contained.hidden) == group
    assert contained.group_of(contained.service.main_pid).endswith("/mosaicd.service")
    assert contained.run["containment"] == holds(contained.service)["holds"] == "cgroup-v2"
    contained.check_end()


def test_restart_with_a_live_run(contained: Contained) -> None:
    """After `restart`, and after kill -9, the service starts, and the run is held, counted and ended as before."""
    service, before = contained.service, contained.service.main_pid
    service.systemctl("restart", "mosaicd")
    eventually(lambda: service.main_pid, lambda pid: pid not in (0, before))
    again = service.main_pid
    service.machine.run("kill", "-9", str(again))
    eventually(lambda: service.main_pid, lambda pid: pid not in (0, again))
    assert service.run_object(contained.run_id)["state"] == "EXEC"
    assert contained.is_alive(contained.hidden)
    contained.check_end()


def test_an_orphan_of_another_launcher(contained: Contained) -> None:
    """The shim is killed while the service is down: the next one finds what it hid, in the old scope."""
    service = contained.service
    service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    [shim] = [line.split()[0] for line in service.processes() if "mosaicd.launcher" in line]
    service.machine.run("kill", "-9", shim)
    service.systemctl("start", "mosaicd")
    ended = service.wait_state(contained.run_id, "TERM")
    assert ended["cause"]["kind"] == "shim_lost"
    assert not contained.is_alive(contained.hidden)


def test_no_scope_is_left(contained: Contained) -> None:
    """A stopped service without runs leaves no scope and no group."""
    contained.check_end()
    contained.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    eventually(contained.scopes, lambda left: not left)


def test_without_a_bus_the_service_still_has_its_own_group(service: UserService) -> None:
    """Where no scope can be had, runs live below the service's own delegated group, and restarts work."""
    service.install(InaccessiblePaths="/usr/bin/busctl")
    service.systemctl("start", "mosaicd")
    run_id = service.submit("--", "sleep", "1000")
    run = service.wait_state(run_id, "EXEC")
    assert run["containment"] == "cgroup-v2"
    before = service.main_pid
    service.systemctl("restart", "mosaicd")
    eventually(lambda: service.main_pid, lambda pid: pid not in (0, before))
    now = service.run_object(run_id)
    assert (now["state"], now["pid"]) == ("EXEC", run["pid"])
    service.said("stop", run_id)
    service.wait_state(run_id, "TERM")
