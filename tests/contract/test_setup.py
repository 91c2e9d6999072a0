"""Setup on a new machine: `make`, its environment, and the built wheel."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.harness.places import ROOT


def fake_python(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)


def set_up(tmp_path: Path, pythons: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run tools/environment.sh in an empty checkout, with only these Python interpreters in PATH."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/environment.sh", tmp_path / "tools")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "dirname", "mkdir", "tail", "rm"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    for name, script in pythons.items():
        fake_python(programs, name, script)
    return subprocess.run(
        ["/bin/sh", str(tmp_path / "tools/environment.sh"), "run"],
        env={"PATH": str(programs)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_setup_without_python_says_what_to_install(tmp_path: Path) -> None:
    """Without Python 3.11 or newer the setup fails; the error has the command that installs it."""
    done = set_up(tmp_path, {"python3": "exit 1", "python3.12": "exit 1"})
    assert done.returncode != 0
    assert "No Python 3.11 or newer" in done.stderr
    assert "apt install python3" in done.stderr


def test_setup_without_venv_says_what_to_install(tmp_path: Path) -> None:
    """If Python lacks ensurepip, as on Debian, the error has the command that installs it."""
    done = set_up(tmp_path, {"python3": 'case "$2" in *ensurepip*) exit 1;; esac'})
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr


def test_a_failed_step_shows_its_log(tmp_path: Path) -> None:
    """The output of pip or venv is printed if the step failed, on stderr."""
    done = set_up(tmp_path, {"python3": 'case "$2" in venv) echo deep trouble; exit 3;; -V) echo P;; esac'})
    assert done.returncode != 0
    assert "deep trouble" in done.stderr
    assert "deep trouble" not in done.stdout


def test_make_without_a_target_lists_the_targets() -> None:
    """`make` installs nothing and lists the targets that the documents mention."""
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in "demo test drill bench lint install-user uninstall-user clean".split():
        assert f"make {target} " in done.stdout


def test_constraints_fit_the_requirements() -> None:
    """Every library in pyproject.toml is pinned in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not [line for line in wanted if line.split(">")[0].strip() not in pinned]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    """The wheel, installed in a new environment, has both programs, the SQL files and the manual."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, env=environment)
    (wheel,) = tmp_path.glob("mosaicd-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mosaicd/store/schema.sql", "mosaicd/store/queries.sql", "mosaicctl/py.typed"} <= set(names)
    assert "mosaicd/upkeep/list_workers.py" in names, "the daemon runs it in the environments of workers"
    assert not [name for name in names if name.startswith(("tests/", "workers/"))]
    assert [name for name in names if name.endswith("share/man/man1/mosaicctl.1")]
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(fresh)], check=True)
    own = str(fresh / "bin/python")
    subprocess.run([own, *pip[1:], "install", str(wheel)], check=True, env=environment)
    for program in ("mosaicd", "mosaicctl"):
        argv = [str(fresh / "bin" / program), "--version"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.startswith(program + " ")
    where = "from mosaicd.upkeep.discovery import discovery_file; print(discovery_file())"
    found = subprocess.run([own, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path)
    listed = subprocess.run([own, found.stdout.strip(), "--json"], check=True, capture_output=True, text=True)
    assert json.loads(listed.stdout)["workers"] == []


def test_an_interpreter_starts_without_import_hooks() -> None:
    """The editable install uses a .pth file, because an import hook would cost 5 ms at every call."""
    code = "import sys; print([name for name in sys.modules if name.startswith('__editable__')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
