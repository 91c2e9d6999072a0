"""Who removes a run's directory may be killed at any moment: what is left says so of itself."""

from pathlib import Path

import pytest

from mosaicd import rundirs
from mosaicd.protocol import rundir
from mosaicd.rundirs import RunDirs

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class Killed(BaseException):
    """In the place of SIGKILL."""


@pytest.mark.parametrize("survived", range(5))
def test_half_of_a_submit_that_nobody_was_told_of_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Killed between any two files, whatever order a disk lists them in."""
    dirs = RunDirs(tmp_path / "runs")
    dirs.create(RUN, {"a": 1}, {})
    discard, left = rundirs.discard, [survived]

    def until_killed(path: Path) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        discard(path)

    monkeypatch.setattr(rundirs, "discard", until_killed)
    listed = rundirs.os.listdir
    for turn in (1, -1):
        left[0] = survived
        with monkeypatch.context() as patch:
            patch.setattr(rundirs.os, "listdir", lambda path, turn=turn: sorted(listed(path))[::turn])
            try:
                dirs.remove(RUN)
            except Killed:
                assert dirs.outline(RUN).is_unacknowledged
            else:
                assert not dirs.path(RUN).exists()
                dirs.create(RUN, {"a": 1}, {})


def test_half_of_what_was_pruned_is_a_remnant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a prune is removed: what says that it is one goes last."""
    dirs = RunDirs(tmp_path / "runs")
    dirs.create(RUN, {}, {})
    dirs.acknowledge(RUN)
    dirs.give_up(RUN)
    (dirs.path(RUN) / rundir.SPEC).unlink()
    gone: list[str] = []
    discard = rundirs.discard
    monkeypatch.setattr(rundirs, "discard", lambda path: (gone.append(path.name), discard(path)))
    dirs.remove(RUN)
    assert gone == [rundir.ENVIRONMENT, rundir.PRUNED] and not dirs.path(RUN).exists()
