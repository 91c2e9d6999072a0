"""The units as files: systemd has nothing to say against them, and installing them is one command."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.places import ROOT
from tests.systemd.machine import HOME, UserService

INSTALLER = ROOT / "packaging/systemd/install_user.py"


def installed(folder: Path, program: str) -> Path:
    """Run the installer into `folder` and return the service's file."""
    argv = [sys.executable, str(INSTALLER), "install", "--directory", str(folder), "--mosaicd", program]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "mosaicd.service"


def verify(folder: Path, *units: Path) -> str:
    """Return the output of `systemd-analyze verify` for units, for a user manager."""
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *map(str, units)],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)},
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent about the service and the socket as they are installed."""
    service = installed(tmp_path, "/bin/true")
    assert verify(tmp_path, service, service.with_suffix(".socket")) == ""


def test_a_fault_would_be_found(tmp_path: Path) -> None:
    """The test above can fail: a misspelt key is reported."""
    service = installed(tmp_path, "/bin/true")
    service.write_text(service.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in verify(tmp_path, service)


def test_the_program_may_have_any_path(tmp_path: Path) -> None:
    """Blanks, dollars and percent signs in the daemon's path survive systemd's own quoting."""
    program = tmp_path / "a $b %c" / "mosaicd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    service = installed(tmp_path / "units", str(program))
    assert verify(tmp_path, service) == ""


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The installer writes no unit that cannot start."""
    argv = [sys.executable, str(INSTALLER), "install", "--directory", str(tmp_path), "--mosaicd", "/nowhere"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "/nowhere" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.systemd
@pytest.mark.root
def test_install_explains_lingering_and_uninstall_undoes_it(service: UserService) -> None:
    """After `install` the manager knows the units and the user knows what enable-linger is for; `uninstall`
    leaves no unit, also when the service is enabled and running."""
    said = service.install()
    assert "loginctl enable-linger" in said
    service.systemctl("enable", "--now", "mosaicd.socket")
    assert service.show("ActiveState", "mosaicd.socket") == "active"
    removed = service.uninstall()
    assert removed.count(f"removed {HOME}/.config/systemd/user/mosaicd.") == 2
    assert service.show("LoadState") == "not-found"
    assert service.show("ActiveState", "mosaicd.socket") == "inactive"
