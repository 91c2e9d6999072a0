"""What a run left in its directory is removed, whatever it is."""

import errno
import os
from pathlib import Path

import pytest

from mosaicd import safe_files
from mosaicd.protocol import rundir
from mosaicd.rundirs.removal import remove_pruned, remove_run_dir
from mosaicd.safe_files import remove_tree


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


def refuse_to_unlink(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Let no file with the name `refused` be removed, as if it were immutable."""
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if os.path.basename(path) == refused:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)


def test_however_deep_it_is(tmp_path: Path) -> None:
    """Neither recursion nor the length of a path ends a removal."""
    deepen(tmp_path / "run", 2200)
    assert remove_pruned(tmp_path / "run") is None
    assert not list(tmp_path.iterdir())


def test_what_is_too_deep_for_once_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is said, and a little less each time."""
    deepen(tmp_path / "run", 100)
    monkeypatch.setattr(safe_files, "MOST_LEVELS", 30)
    said = [remove_pruned(tmp_path / "run") for _ in range(2)]  # each of which tries twice
    assert said[0] and said[1] is None


def test_links_go_and_what_they_point_to_stays(tmp_path: Path) -> None:
    """In whatever place they are, and to whatever they lead."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    deepen(tmp_path / "run", 2)
    for place in ("link", "a/link", "a/a/link"):
        (tmp_path / "run" / place).symlink_to(tmp_path / "precious")
    (tmp_path / "run" / "a" / "gone").symlink_to("nowhere")
    remove_tree(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_what_was_closed_is_opened(tmp_path: Path) -> None:
    """A directory without any rights is its owner's all the same."""
    deepen(tmp_path / "run", 3)
    for place in ("a/a/a", "a/a", "a", ""):
        (tmp_path / "run" / place).chmod(0)
    remove_tree(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_entry_that_cannot_be_removed_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go, at any depth; what was removed and what failed is counted, with the first error."""
    for place in ("run/a", "run/b/c", "run/d/e/f"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("first", "fixed", "last"):
            (tmp_path / place / name).write_text("12345")
    refuse_to_unlink(monkeypatch, "fixed")
    removed = remove_tree(tmp_path / "run")
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["fixed"] * 3
    assert (removed.files, removed.bytes, removed.failed) == (6, 30, 3)
    assert removed.error is not None and removed.error.filename == "fixed"


def test_marks_stay_in_a_run_directory_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its marks, what is left would be taken for a run."""
    for name in (rundir.PRUNED, rundir.UNACKNOWLEDGED, "fixed", "other"):
        (tmp_path / name).touch()
    refuse_to_unlink(monkeypatch, "fixed")
    assert remove_run_dir(tmp_path).failed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed", rundir.PRUNED, rundir.UNACKNOWLEDGED]


def test_a_link_in_place_of_a_run_directory(tmp_path: Path) -> None:
    """The link goes, and what it leads to stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "run").symlink_to("precious")
    assert remove_run_dir(tmp_path / "run").failed == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "precious"]


def test_somebody_elses_empty_directories_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's mount point is root's: its mode cannot be changed, nor can it be moved, but it can go."""
    for place in ("run/mounted", "run/ours/mounted"):
        (tmp_path / place).mkdir(parents=True)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "fchmod", refused)
    monkeypatch.setattr(os, "rename", refused)
    remove_tree(tmp_path / "run")
    assert not list(tmp_path.iterdir())
