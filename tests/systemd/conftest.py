"""One machine for all systemd tests, and a new installation of the units for each test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import UNSUPPORTED, Machine, UserService

NEEDED = ("nsenter", "setpriv", "systemctl", "journalctl", "pivot_root", "dbus-daemon", "ps", "strace")


def skip(reason: str) -> None:
    """Skip the test with the reason; in CI, where everything is installed, fail instead, except for
    namespaces."""
    if os.environ.get("CI") and "namespaces" not in reason:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A real systemd with control groups of version 2, for all tests of the session."""
    yield from boot(tmp_path_factory.mktemp("machine"), hybrid=False)


@pytest.fixture(scope="session")
def hybrid_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A real systemd with controllers of version 1 beside version 2."""
    yield from boot(tmp_path_factory.mktemp("hybrid"), hybrid=True)


def boot(state: Path, hybrid: bool) -> Iterator[Machine]:
    """Boot a machine, or skip the test if that is impossible; stop it at the end."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or not Path("/lib/systemd/systemd").exists():
        skip(f"a real systemd needs {', '.join(missing) or '/lib/systemd/systemd'}")
    booted = Machine(state, hybrid)
    if not booted.is_up:
        status, error = booted.boot_error()
        if status == UNSUPPORTED or "Operation not permitted" in error:
            skip(f"this kernel does not allow a systemd in namespaces: {error.strip()[-300:]}")
        pytest.fail(f"the machine did not boot ({status}): {error}")
    yield booted
    booted.close()


@pytest.fixture
def hybrid_service(hybrid_machine: Machine) -> Iterator[UserService]:
    """The user's installation of mosaicd on the hybrid machine."""
    installed = UserService(hybrid_machine)
    yield installed
    installed.reset()


@pytest.fixture
def service(machine: Machine) -> Iterator[UserService]:
    """The user's installation of mosaicd; it is removed after the test."""
    installed = UserService(machine)
    yield installed
    installed.reset()
