"""Names and paths that must not occur in the project."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.contract.sources import python_files
from tests.harness.places import ROOT

#: Names of modules that do not say what the module owns.
MEANINGLESS_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"})

#: Paths of one machine.  `/home/<name>` is allowed for the example users ada, bob, you and user.
MACHINE_PATHS = re.compile(r"(?<![\w.~}-])(/root/|/Users/|/home/(?!ada\b|bob\b|you\b|user\b|%|\$|\{))")

#: Marks of unfinished code.
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

BINARY = {".db", ".gz", ".png", ".sqlite", ".sqlite3"}


def tracked() -> list[Path]:
    """Return the text files of the project that git tracks or would add."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:  # an unpacked source archive: check the Python files
        return python_files()
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in BINARY]


def lines_with(pattern: re.Pattern[str], skip: Path) -> list[str]:
    found = []
    for path in tracked():
        if path == skip:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    return found


def test_no_module_has_a_meaningless_name() -> None:
    """No module or package is named utils, helpers, common, manager, base or misc."""
    shown = [path.relative_to(ROOT) for path in python_files()]
    assert not [str(path) for path in shown if MEANINGLESS_NAMES.intersection((*path.parts[:-1], path.stem))]


def test_no_machine_paths() -> None:
    """No file contains a path of one machine."""
    assert not lines_with(MACHINE_PATHS, skip=Path(__file__))


def test_no_file_has_a_mark_of_unfinished_code() -> None:
    """Unfinished work is an issue, not a comment."""
    assert not lines_with(UNFINISHED, skip=Path(__file__))


@pytest.mark.parametrize("text", ["cd /root/main", "'/root/.cache'", "see /home/carol/x", "/Users/carol"])
def test_a_machine_path_is_reported(text: str) -> None:
    """MACHINE_PATHS matches each of these paths."""
    assert MACHINE_PATHS.search(text)


@pytest.mark.parametrize("text", ["/home/ada/runs", "~/work/x", "https://x.org/work", "a.root/x", "/tmp/ve"])
def test_an_example_path_is_not_reported(text: str) -> None:
    """MACHINE_PATHS matches no path of an example user and no part of another word."""
    assert not MACHINE_PATHS.search(text)
