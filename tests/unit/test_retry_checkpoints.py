"""The checkpoint directories that a retry accepts: those in which the SDK finds a checkpoint."""

from pathlib import Path

import pytest
from mosaic_worker.checkpoints import CheckpointStore

from mosaicd.rpc.verbs.retry import _find_checkpoints


def test_a_checkpoint_that_was_renamed_for_its_successor_counts(tmp_path: Path) -> None:
    """After a crash between the two renames of a save, only the old checkpoint exists."""
    checkpoints = CheckpointStore(tmp_path)
    path = checkpoints.save(7, {"model": b"weights"}).path
    path.rename(tmp_path / f".{path.name}.123.old")
    assert checkpoints.latest_verified()[0] is not None
    assert _find_checkpoints(tmp_path) == (True, True)


@pytest.mark.parametrize("leftover", [".checkpoint-000000000007.123.tmp", ".hidden.old", "notes"])
def test_an_unfinished_checkpoint_does_not_count(tmp_path: Path, leftover: str) -> None:
    """A retry cannot continue from a temporary directory or from a directory of another name."""
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save(7, {"model": b"weights"}).path.rename(tmp_path / leftover)
    assert checkpoints.latest_verified()[0] is None
    assert _find_checkpoints(tmp_path) == (False, False)
