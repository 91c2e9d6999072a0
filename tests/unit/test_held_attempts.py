"""Which attempts of a run a shim has in its hand, as far as its directory can be looked at."""

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
    """A run's directory: a shim holds attempt 2, and none holds attempt 1."""
    for number in (1, 2):
        (tmp_path / f"attempt-{number}").mkdir()
    descriptor = os.open(tmp_path / "attempt-2", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield tmp_path
    os.close(descriptor)


def test_what_lies_beside_an_attempt_hides_none(run: Path) -> None:
    """A file, a link, a word in a number's place: each is passed over, in whatever order they are found."""
    assert held_attempts(run) == [2]
    for stray in range(100, 200):
        (run / f"attempt-{stray}").touch()
        (run / f"attempt-x{stray}").mkdir()
    (run / "attempt-3").symlink_to(run / "attempt-2")
    assert held_attempts(run) == [2]
    assert held_attempts(run / "no such") == []


@pytest.mark.parametrize("where", ["open", "scandir"])
def test_not_known_is_not_free(run: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor the check is an error, not an answer."""

    def refused(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "no descriptor")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no descriptor"):
        patch.setattr(os, where, refused)
        held_attempts(run)


def test_half_a_record_is_trouble_once_nobody_writes(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A shim that is looked at while it writes launch.json is no line of the log; what one left half is."""
    for number in (1, 2):
        (run / f"attempt-{number}" / rundir.LAUNCH).write_text('{"run_id": "')
    rundirs = RunDirs(tmp_path.parent)
    found = rundirs.examine(tmp_path.name, 2, os.getuid())
    assert found.is_held and found.launch is not None and not caplog.records
    found = rundirs.examine(tmp_path.name, 1, os.getuid())
    assert not found.is_held and found.launch == Launch()
    assert entries(caplog.records) == [Catalogue.RECORD_TORN]


@pytest.mark.parametrize("has_started", [False, True])
def test_who_has_started_a_worker_is_not_begun_again(run: Path, has_started: bool) -> None:
    """A launch.json that says nothing is of a shim that stands still, or, where there is more, damage."""
    (run / "attempt-2" / rundir.LAUNCH).write_text("{}")
    if has_started:
        (run / "attempt-2" / rundir.STARTED).write_text("{}")

    class Hasty(Clock):
        def __init__(self) -> None:
            self._monos = count(0, 2 * LAUNCH_S)

        def mono(self) -> float:
            return next(self._monos)

    at_work = cast("Run", SimpleNamespace(run_id=run.name, owner_uid=os.getuid()))
    reader = RunDirReader(RunDirs(run.parent), Timeouts(), Hasty(), str)
    attempt = reader._read_attempt(at_work, 2)
    assert attempt.is_held and (attempt.launch is not None) is has_started
