"""The unit files are valid for systemd, and the installer writes and removes them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.places import ROOT
from tests.systemd.machine import HOME, UserService

INSTALLER = ROOT / "packaging/systemd/install_user.py"


def installed(folder: Path, program: str) -> Path:
    """Run the installer into `folder`; return the path of the service's file."""
    argv = [sys.executable, str(INSTALLER), "install", "--directory", str(folder), "--mosaicd", program]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "mosaicd.service"


def verify(folder: Path, *units: Path) -> str:
    """Return the output of `systemd-analyze verify` for units of a user manager."""
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *map(str, units)],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)},
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip


def test_systemd_reports_nothing_for_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` reports nothing for the installed service and socket."""
    service = installed(tmp_path, "/bin/true")
    assert verify(tmp_path, service, service.with_suffix(".socket")) == ""


def test_systemd_reports_a_misspelt_key(tmp_path: Path) -> None:
    """The test above can fail: `systemd-analyze verify` reports a misspelt key."""
    service = installed(tmp_path, "/bin/true")
    service.write_text(service.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in verify(tmp_path, service)


def test_the_program_may_have_any_path(tmp_path: Path) -> None:
    """Spaces, dollar and percent signs in the path of the daemon are quoted correctly."""
    program = tmp_path / "a $b %c" / "mosaicd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    service = installed(tmp_path / "units", str(program))
    assert verify(tmp_path, service) == ""


def test_install_refuses_a_missing_program(tmp_path: Path) -> None:
    """The installer writes no unit for a program that does not exist."""
    argv = [sys.executable, str(INSTALLER), "install", "--directory", str(tmp_path), "--mosaicd", "/nowhere"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "/nowhere" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.systemd
@pytest.mark.root
def test_install_explains_lingering_and_uninstall_removes_the_units(service: UserService) -> None:
    """`install` loads the units and prints how to enable lingering; `uninstall` removes them, also if they
    are enabled and running."""
    output = service.install()
    assert "loginctl enable-linger" in output
    service.systemctl("enable", "--now", "mosaicd.socket")
    assert service.show("ActiveState", "mosaicd.socket") == "active"
    removed = service.uninstall()
    assert removed.count(f"removed {HOME}/.config/systemd/user/mosaicd.") == 2
    assert service.show("LoadState") == "not-found"
    assert service.show("ActiveState", "mosaicd.socket") == "inactive"
