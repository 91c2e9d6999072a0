"""What a run left in its directory is removed, whatever it is."""

import errno
import os
from pathlib import Path

import pytest

from mosaicd.rundirs import directories
from mosaicd.rundirs.directories import discard
from mosaicd.upkeep.retention import clear


def deepen(path: Path, levels: int) -> None:
    """Make directories in one another, deeper than a path is long, with a file in each."""
    path.mkdir()
    inner = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("a", dir_fd=inner)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
        outer, inner = inner, os.open("a", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def test_however_deep_it_is(tmp_path: Path) -> None:
    """Neither recursion nor the length of a path ends a removal."""
    deepen(tmp_path / "run", 2200)
    assert clear(tmp_path / "run") is None
    assert not list(tmp_path.iterdir())


def test_what_is_too_deep_for_once_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is said, and a little less each time."""
    deepen(tmp_path / "run", 100)
    monkeypatch.setattr(directories, "MOST_LEVELS", 30)
    said = [clear(tmp_path / "run") for _ in range(2)]  # each of which tries twice
    assert said[0] and said[1] is None


def test_links_go_and_what_they_point_to_stays(tmp_path: Path) -> None:
    """In whatever place they are, and to whatever they lead."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    deepen(tmp_path / "run", 2)
    for place in ("link", "a/link", "a/a/link"):
        (tmp_path / "run" / place).symlink_to(tmp_path / "precious")
    (tmp_path / "run" / "a" / "gone").symlink_to("nowhere")
    discard(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    discard(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_what_was_closed_is_opened(tmp_path: Path) -> None:
    """A directory without any rights is its owner's all the same."""
    deepen(tmp_path / "run", 3)
    for place in ("a/a/a", "a/a", "a", ""):
        (tmp_path / "run" / place).chmod(0)
    discard(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_somebody_elses_empty_directories_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's mount point is root's: its mode cannot be changed, nor can it be moved, but it can go."""
    for place in ("run/mounted", "run/ours/mounted"):
        (tmp_path / place).mkdir(parents=True)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "rename", refused)
    discard(tmp_path / "run")
    assert not list(tmp_path.iterdir())
