"""The removal of a run's temporary directory at its end, with counts in leftovers.json."""

import errno
import json
import os
from pathlib import Path

import pytest

from mosaicd.protocol import rundir
from mosaicd.shim.attempt_dir import AttemptDir
from mosaicd.shim.temp_cleanup import TempCleanup


def test_a_file_that_cannot_be_removed_does_not_protect_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other files are removed; leftovers.json counts removed and failed files."""
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "immutable":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(rundir, "TEMPORARY_BASE", str(tmp_path))
    attempt_dir = AttemptDir(str(tmp_path / "attempt-1"))
    cleanup = TempCleanup("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1, attempt_dir)
    environment: dict[str, str] = {}
    cleanup.prepare(environment)
    temp_dir = Path(environment["TMPDIR"])
    for place in (temp_dir, temp_dir / "a", temp_dir / "a" / "b"):
        place.mkdir(exist_ok=True)
        for name in ("first", "immutable", "last"):
            (place / name).write_text("12345")
    monkeypatch.setattr(os, "unlink", refuse)
    cleanup.clean_up()
    assert [path.name for path in temp_dir.rglob("*") if path.is_file()] == ["immutable"] * 3
    record = json.loads((tmp_path / "attempt-1" / "leftovers.json").read_text())
    assert record["temporary"] == {"files": 6, "bytes": 30, "failed": 3}
    os.close(attempt_dir.dir_fd)
