"""One word for one thing, and no word that says where the project was built."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.contract.sources import python_files
from tests.harness.places import ROOT

#: Names that say nothing of what a module owns.
EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"})

#: Paths that exist on one machine only.  `/home/<name>` is allowed in prose as an example of ada, bob or you.
MACHINE_PATHS = re.compile(r"(?<![\w.~}-])(/root/|/Users/|/home/(?!ada\b|bob\b|you\b|user\b|%|\$|\{))")

#: Marks of unfinished code.
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

BINARY = {".db", ".gz", ".png", ".sqlite", ".sqlite3"}


def tracked() -> list[Path]:
    """Every text file of the project that git knows or would add."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:  # an unpacked source archive: the Python files are what there is to judge
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


def test_no_module_has_an_empty_name() -> None:
    """A module is named for what it owns: no utils, helpers, common, manager or base."""
    shown = [path.relative_to(ROOT) for path in python_files()]
    assert not [str(path) for path in shown if EMPTY_NAMES.intersection((*path.parts[:-1], path.stem))]


def test_no_machine_paths() -> None:
    """Nothing in the tree points at one particular machine."""
    assert not lines_with(MACHINE_PATHS, skip=Path(__file__))


def test_nothing_is_left_for_later() -> None:
    """What is not done is an issue, not a comment."""
    assert not lines_with(UNFINISHED, skip=Path(__file__))


@pytest.mark.parametrize("text", ["cd /root/main", "'/root/.cache'", "see /home/carol/x", "/Users/carol"])
def test_a_machine_path_is_seen(text: str) -> None:
    """The test of paths can fail."""
    assert MACHINE_PATHS.search(text)


@pytest.mark.parametrize("text", ["/home/ada/runs", "~/work/x", "https://x.org/work", "a.root/x", "/tmp/ve"])
def test_a_harmless_path_is_not_reported(text: str) -> None:
    """An example in a manual is no machine path."""
    assert not MACHINE_PATHS.search(text)
