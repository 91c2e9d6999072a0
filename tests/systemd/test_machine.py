"""The test machine is a real systemd, and it stops when its owner ends for any reason."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.places import ROOT
from tests.harness.waiting import wait_until
from tests.systemd.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.root]

OWNER = """
import sys
from pathlib import Path
from tests.systemd.machine import Machine
machine = Machine(Path(sys.argv[1]))
print(machine.pid, machine.boot.pid, flush=True)
sys.stdin.read()
"""


def test_the_user_has_a_manager(machine: Machine) -> None:
    """`systemctl --user` reaches a running user manager, and no unit has failed."""
    command = ("systemctl", "--user", "is-system-running")
    wait_until(
        lambda: machine.run(*command, check=False).stdout.strip(),
        lambda state: state == "running",
        "systemd is up",
        60,
    )
    assert not machine.run("systemctl", "--failed", "--no-legend", root=True).stdout.strip()


def test_host_processes_are_not_visible(machine: Machine) -> None:
    """Only the machine's own processes are visible inside."""
    seen = machine.run("ps", "-e", "-o", "pid=,comm=", root=True).stdout
    assert seen.split()[:2] == ["1", "systemd"]
    assert len(seen.splitlines()) < 15


def test_the_machine_ends_when_its_owner_is_killed(machine: Machine, tmp_path: Path) -> None:
    """After kill -9 of its owner, the machine, its boot process and its groups are removed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert owner.stdout
    assert owner.stdin
    first, boot = map(int, owner.stdout.readline().split())
    assert Path(f"/proc/{first}/comm").read_text() == "systemd\n"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    wait_until(
        lambda: [pid for pid in (first, boot) if processes.is_alive(pid)],
        lambda pids: not pids,
        "the machine ends",
        60,
    )
    groups = Path("/sys/fs/cgroup")  # only the top of each hierarchy: deeper groups are of other programs
    assert not [*groups.glob(f"machine-{boot}"), *groups.glob(f"*/machine-{boot}")]
