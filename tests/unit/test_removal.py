"""Removal of a directory tree with any content: deep, locked, linked, immutable or foreign."""

import errno
import os
from pathlib import Path

import pytest

from mosaicd import safe_files
from mosaicd.protocol import rundir
from mosaicd.rundirs.removal import remove_pruned, remove_run_dir
from mosaicd.safe_files import remove_tree


def deepen(path: Path, levels: int) -> None:
    """Make `levels` nested directories, each with a file; the path may exceed the longest path."""
    path.mkdir()
    inner = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("a", dir_fd=inner)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
        outer, inner = inner, os.open("a", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def refuse_to_unlink(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Make the removal of files with the name `refused` fail, as if they were immutable."""
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if os.path.basename(path) == refused:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)


def test_a_tree_deeper_than_the_longest_path_is_removed(tmp_path: Path) -> None:
    """The removal needs neither recursion nor complete paths."""
    deepen(tmp_path / "run", 2200)
    assert remove_pruned(tmp_path / "run") is None
    assert not list(tmp_path.iterdir())


def test_a_tree_beyond_the_depth_limit_is_removed_in_several_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call removes a part and returns an error until the tree is removed."""
    deepen(tmp_path / "run", 100)
    monkeypatch.setattr(safe_files, "MOST_LEVELS", 30)
    errors = [remove_pruned(tmp_path / "run") for _ in range(2)]  # each call tries twice
    assert errors[0] and errors[1] is None


def test_a_directory_that_is_created_again_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is not empty if each removal succeeds and the directory exists all the same."""
    rmdir = os.rmdir

    def remove_and_create(path: str, *, dir_fd: int | None = None) -> None:
        rmdir(path, dir_fd=dir_fd)
        (tmp_path / "run").mkdir()

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "rmdir", remove_and_create)
    assert remove_pruned(tmp_path / "run") == "another process creates it again"


def test_links_are_removed_and_their_targets_stay(tmp_path: Path) -> None:
    """This holds for links at the root of the tree, inside it, and without a target."""
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


def test_directories_without_permissions_are_removed(tmp_path: Path) -> None:
    """The removal gives itself the permissions that it needs."""
    deepen(tmp_path / "run", 3)
    for place in ("a/a/a", "a/a", "a", ""):
        (tmp_path / "run" / place).chmod(0)
    remove_tree(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_entry_that_cannot_be_removed_does_not_protect_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other entries are removed; the result has both counts and the first error."""
    for place in ("run/a", "run/b/c", "run/d/e/f"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("first", "fixed", "last"):
            (tmp_path / place / name).write_text("12345")
    refuse_to_unlink(monkeypatch, "fixed")
    removed = remove_tree(tmp_path / "run")
    remaining = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert remaining == ["fixed"] * 3
    assert (removed.files, removed.bytes, removed.failed) == (6, 30, 3)
    assert removed.error is not None and removed.error.filename == "fixed"


def test_marks_stay_in_a_run_directory_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its marks, the rest of a pruned run would count as a run."""
    for name in (rundir.PRUNED, rundir.UNACKNOWLEDGED, "fixed", "other"):
        (tmp_path / name).touch()
    refuse_to_unlink(monkeypatch, "fixed")
    assert remove_run_dir(tmp_path).failed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed", rundir.PRUNED, rundir.UNACKNOWLEDGED]


def test_a_link_in_place_of_a_run_directory_is_removed(tmp_path: Path) -> None:
    """The link is removed, and its target stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "run").symlink_to("precious")
    assert remove_run_dir(tmp_path / "run").failed == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "precious"]


def test_empty_directories_of_other_users_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty directory that can be neither chmodded nor renamed, such as a mount point, is removed."""
    for place in ("run/mounted", "run/ours/mounted"):
        (tmp_path / place).mkdir(parents=True)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "fchmod", refused)
    monkeypatch.setattr(os, "rename", refused)
    remove_tree(tmp_path / "run")
    assert not list(tmp_path.iterdir())
