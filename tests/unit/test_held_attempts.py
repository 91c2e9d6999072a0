"""The attempts of a run that a living shim holds, found by the locks in the run directory."""

import errno
import fcntl
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mosaicd.clock import Clock
from mosaicd.config.settings import Timeouts
from mosaicd.core.run import Run
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt import Launch
from mosaicd.recovery.rundir_reader import LAUNCH_S, RunDirReader
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from tests.harness.trouble import entries


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """Return a run directory with two attempts; only attempt 2 is locked, as by a living shim."""
    for number in (1, 2):
        (tmp_path / f"attempt-{number}").mkdir()
    descriptor = os.open(tmp_path / "attempt-2", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield tmp_path
    os.close(descriptor)


def test_other_entries_of_the_run_directory_are_ignored(run: Path) -> None:
    """Files, links and directories with other names do not hide a held attempt."""
    assert held_attempts(run) == [2]
    for stray in range(100, 200):
        (run / f"attempt-{stray}").touch()
        (run / f"attempt-x{stray}").mkdir()
    (run / "attempt-3").symlink_to(run / "attempt-2")
    assert held_attempts(run) == [2]
    assert held_attempts(run / "no such") == []


@pytest.mark.parametrize("where", ["open", "scandir"])
def test_a_failed_lock_check_raises(run: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor the check raises OSError and does not report the attempt as free."""

    def refused(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "no descriptor")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no descriptor"):
        patch.setattr(os, where, refused)
        held_attempts(run)


def test_an_incomplete_record_is_logged_only_without_a_writer(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An incomplete launch.json is logged only if no shim holds the attempt."""
    for number in (1, 2):
        (run / f"attempt-{number}" / rundir.LAUNCH).write_text('{"run_id": "')
    rundirs = RunDirs(tmp_path.parent)
    attempt = rundirs.read_attempt(tmp_path.name, 2, os.getuid())
    assert attempt.is_held and attempt.launch is not None and not caplog.records
    attempt = rundirs.read_attempt(tmp_path.name, 1, os.getuid())
    assert not attempt.is_held and attempt.launch == Launch()
    assert entries(caplog.records) == [Catalogue.RECORD_TORN]


@pytest.mark.parametrize("has_started", [False, True])
def test_an_empty_launch_record_with_a_started_worker_is_kept(run: Path, has_started: bool) -> None:
    """An empty launch.json counts as missing, unless started.json exists."""
    (run / "attempt-2" / rundir.LAUNCH).write_text("{}")
    if has_started:
        (run / "attempt-2" / rundir.STARTED).write_text("{}")

    class FastClock(Clock):
        def __init__(self) -> None:
            self._monos = count(0, 2 * LAUNCH_S)

        def mono(self) -> float:
            return next(self._monos)

    live_run = cast("Run", SimpleNamespace(run_id=run.name, owner_uid=os.getuid()))
    reader = RunDirReader(RunDirs(run.parent), Timeouts(), FastClock(), str)
    attempt = reader._read_attempt(live_run, 2)
    assert attempt.is_held and (attempt.launch is not None) is has_started
