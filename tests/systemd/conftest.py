"""One machine for all systemd tests, one fresh installation of the units for each."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import UNSUPPORTED, Machine, UserService

NEEDED = ("nsenter", "setpriv", "systemctl", "journalctl", "pivot_root", "dbus-daemon", "ps", "strace")


def cannot(reason: str) -> None:
    """Skip with the reason; in CI, where everything is installed as root, that is a failure."""
    if os.environ.get("CI") and "namespaces" not in reason:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A real systemd of our own, up for the whole session; control groups of version 2."""
    yield from boot(tmp_path_factory.mktemp("machine"), hybrid=False)


@pytest.fixture(scope="session")
def hybrid_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another, with controllers of version 1 beside version 2."""
    yield from boot(tmp_path_factory.mktemp("hybrid"), hybrid=True)


def boot(state: Path, hybrid: bool) -> Iterator[Machine]:
    """Boot a machine, skip where that cannot be, and take it down again."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or not Path("/lib/systemd/systemd").exists():
        cannot(f"a real systemd needs {', '.join(missing) or '/lib/systemd/systemd'}")
    booted = Machine(state, hybrid)
    if not booted.is_up:
        status, complaint = booted.why_not()
        if status == UNSUPPORTED or "Operation not permitted" in complaint:
            cannot(f"this kernel does not allow a systemd in namespaces: {complaint.strip()[-300:]}")
        pytest.fail(f"the machine did not boot ({status}): {complaint}")
    yield booted
    booted.close()


@pytest.fixture
def hybrid_service(hybrid_machine: Machine) -> Iterator[UserService]:
    """The user's installation of mosaicd on the hybrid machine."""
    made = UserService(hybrid_machine)
    yield made
    made.reset()


@pytest.fixture
def service(machine: Machine) -> Iterator[UserService]:
    """The user's installation of mosaicd; nothing of it is left afterwards."""
    made = UserService(machine)
    yield made
    made.reset()
