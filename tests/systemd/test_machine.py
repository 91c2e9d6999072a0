"""The test machine itself: it is a real systemd, and it goes away whatever happens to its owner."""

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
    """Inside, `systemctl --user` talks to a running user manager, and nothing has failed."""
    asked = ("systemctl", "--user", "is-system-running")
    wait_until(
        lambda: machine.run(*asked, check=False).stdout.strip(),
        lambda said: said == "running",
        "systemd is up",
        60,
    )
    assert not machine.run("systemctl", "--failed", "--no-legend", root=True).stdout.strip()


def test_the_host_is_out_of_sight(machine: Machine) -> None:
    """Inside there are only the machine's own processes: a test cannot hurt what it cannot see."""
    seen = machine.run("ps", "-e", "-o", "pid=,comm=", root=True).stdout
    assert seen.split()[:2] == ["1", "systemd"]
    assert len(seen.splitlines()) < 15


def test_nothing_stays_when_the_owner_is_killed(machine: Machine, tmp_path: Path) -> None:
    """kill -9 of the process that holds the pipe takes the machine, its boot process and its group down."""
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
        lambda left: not left,
        "the machine ends",
        60,
    )
    groups = Path("/sys/fs/cgroup")  # each hierarchy's top; what is deeper is others', and comes and goes
    assert not [*groups.glob(f"machine-{boot}"), *groups.glob(f"*/machine-{boot}")]
