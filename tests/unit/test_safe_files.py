"""Safe opening of files that another program may have made."""

import os
from pathlib import Path

import pytest

from mosaicd.safe_files import NotTrusted, create_synced, open_directory, open_regular, read_regular


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    """A file can be read by its path or relative to an open directory."""
    create_synced(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert read_regular(tmp_path / "file", limit_bytes=7) == b"content"
    parent = open_directory(tmp_path)
    try:
        assert read_regular("file", parent, owners=(os.getuid(),), limit_bytes=100) == b"content"
    finally:
        os.close(parent)


def test_a_pipe_does_not_block_its_reader(tmp_path: Path) -> None:
    """A pipe without a writer and a directory are refused without waiting."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(NotTrusted, match="not a regular file"):
            open_regular(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Opening a link to a file or to a directory raises OSError."""
    (tmp_path / "to_file").symlink_to("/etc/passwd")
    (tmp_path / "to_directory").symlink_to("/etc")
    with pytest.raises(OSError):
        open_regular(tmp_path / "to_file")
    with pytest.raises(OSError):
        open_directory(tmp_path / "to_directory")


def test_owner_and_size_are_checked(tmp_path: Path) -> None:
    """The error has the value; no descriptor leaks."""
    (tmp_path / "file").write_bytes(bytes(11))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotTrusted, match=f"uid {os.getuid()}, not to uid 4 or 5"):
        open_regular(tmp_path / "file", owners=(4, 5))
    with pytest.raises(NotTrusted, match="larger than 10 bytes"):
        read_regular(tmp_path / "file", limit_bytes=10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """create_synced raises FileExistsError for any existing entry and does not follow a link."""
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("link", "."):
        with pytest.raises(FileExistsError):
            create_synced(tmp_path / name, b"x")
    assert not (tmp_path / "elsewhere").exists()
