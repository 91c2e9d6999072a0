"""The analytics manifest: one shape written, every known shape read."""

import json
from pathlib import Path
from typing import Any

import pytest
from mosaic_worker import ManifestInvalid, WorkerAnalyticsManifest, find_manifest


def test_what_is_written(tmp_path: Path) -> None:
    """analytics.json has run_id, worker_type, artifacts, metadata, and reads back equal."""
    manifest = WorkerAnalyticsManifest(
        "r", "tabular", {"checkpoints": {"directory": "checkpoints"}}, {"seed": 1}
    )
    path = manifest.save(tmp_path / "files")
    assert sorted(json.loads(path.read_text())) == ["artifacts", "metadata", "run_id", "worker_type"]
    assert WorkerAnalyticsManifest.load(path) == manifest
    assert [entry.name for entry in path.parent.iterdir()] == ["analytics.json"]


CLEANRL: dict[str, Any] = {
    "artifacts": {
        "tensorboard": {"enabled": True, "relative_path": "tensorboard"},
        "wandb": {"enabled": False, "run_path": None},
    },
    "run_id": "r",
    "tensorboard_dir": "elsewhere",
    "wandb_run_path": "team/run",
    "optuna_db_path": "study.db",
    "checkpoints_dir": "checkpoints",
    "notes": "first try",
}


def test_cleanrl_keys_are_understood() -> None:
    """Flat keys fill the sections they belong to, never over a value that is there; the rest is metadata."""
    manifest = WorkerAnalyticsManifest.from_dict(CLEANRL)
    assert manifest.artifacts == {
        "tensorboard": {"enabled": True, "relative_path": "tensorboard"},
        "wandb": {"enabled": False, "run_path": "team/run"},
        "checkpoints": {"directory": "checkpoints"},
    }
    assert manifest.metadata == {"optuna_db_path": "study.db", "notes": "first try"}


@pytest.mark.parametrize("data", [{}, {"artifacts": None}, {"artifacts": [1], "metadata": "x", "run_id": 3}])
def test_odd_shapes_are_read(data: dict[str, Any]) -> None:
    """What is missing or of a wrong type is empty, not an error."""
    manifest = WorkerAnalyticsManifest.from_dict(data)
    assert manifest.artifacts == {}


def test_sections_may_be_plain_strings() -> None:
    """A section written as a path means that path."""
    manifest = WorkerAnalyticsManifest.from_dict({"artifacts": {"tensorboard": "tb", "videos_dir": "videos"}})
    assert manifest.artifacts == {"tensorboard": {"relative_path": "tb"}, "videos_dir": "videos"}


def test_both_names_are_found(tmp_path: Path) -> None:
    """analytics.json comes before <run_id>_analytics.json; neither is None; not JSON is an error."""
    assert find_manifest(tmp_path) is None
    assert find_manifest(tmp_path / "absent") is None
    (tmp_path / "r1_analytics.json").write_text('{"run_id": "r1"}')
    found = find_manifest(tmp_path)
    assert found is not None
    assert WorkerAnalyticsManifest.load(found).run_id == "r1"
    (tmp_path / "analytics.json").write_text("[]")
    found = find_manifest(tmp_path)
    assert found == tmp_path / "analytics.json"
    with pytest.raises(ManifestInvalid, match="not an object"):
        WorkerAnalyticsManifest.load(found)
