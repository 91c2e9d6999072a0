"""In which directory a retry sees a checkpoint: where the SDK would find one, in the wake of a crash too."""

from pathlib import Path

import pytest
from mosaic_worker.checkpoints import CheckpointStore

from mosaicd.rpc.verbs.retry import _look_into


def test_what_was_moved_aside_for_a_successor_counts(tmp_path: Path) -> None:
    """A crash between the two renames of a save leaves only what was there before."""
    kept = CheckpointStore(tmp_path)
    path = kept.save(7, {"model": b"weights"}).path
    path.rename(tmp_path / f".{path.name}.123.old")
    assert kept.latest_verified()[0] is not None
    assert _look_into(tmp_path) == (True, True)


@pytest.mark.parametrize("left", [".checkpoint-000000000007.123.tmp", ".hidden.old", "notes"])
def test_what_was_never_put_in_place_does_not(tmp_path: Path, left: str) -> None:
    """A retry cannot continue from it."""
    kept = CheckpointStore(tmp_path)
    kept.save(7, {"model": b"weights"}).path.rename(tmp_path / left)
    assert kept.latest_verified()[0] is None
    assert _look_into(tmp_path) == (False, False)
