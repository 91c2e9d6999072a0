"""The removal of a run's temporary directory at its end, with counts in leftovers.json."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from mosaicd.protocol import rundir
from mosaicd.shim.attempt_dir import AttemptDir
from mosaicd.shim.temp_cleanup import TempCleanup
from tests.harness.waiting import wait_until


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


def test_shared_memory_of_a_later_attempt_is_kept(tmp_path: Path) -> None:
    """Shared memory that a later attempt made while the shim of the earlier one cleans up is not removed."""
    run_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    earlier, later = (Path(f"/dev/shm/test-{os.getpid()}-{run_id}-{number}") for number in (1, 2))
    attempt_dir = AttemptDir(str(tmp_path / "attempt-1"))
    cleanup = TempCleanup(run_id, 1, attempt_dir)
    try:
        earlier.write_text("x")
        cleanup.note_empty()
        emptied_at = time.time()
        wait_until(lambda: later.write_text("x") and later.stat().st_ctime > emptied_at)
        cleanup.clean_up()
        assert (earlier.exists(), later.exists()) == (False, True)
    finally:
        earlier.unlink(missing_ok=True)
        later.unlink(missing_ok=True)
        os.close(attempt_dir.dir_fd)
