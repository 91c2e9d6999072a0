"""The analytics manifest: one format is written, every known format is read."""

import json
from pathlib import Path
from typing import Any

import pytest
from mosaic_worker import ManifestInvalid, WorkerAnalyticsManifest, find_manifest


def test_manifest_round_trips_through_its_file(tmp_path: Path) -> None:
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


def test_flat_cleanrl_keys_fill_their_sections() -> None:
    """Flat CleanRL keys fill their sections unless a value exists; the other keys become metadata."""
    manifest = WorkerAnalyticsManifest.from_dict(CLEANRL)
    assert manifest.artifacts == {
        "tensorboard": {"enabled": True, "relative_path": "tensorboard"},
        "wandb": {"enabled": False, "run_path": "team/run"},
        "checkpoints": {"directory": "checkpoints"},
    }
    assert manifest.metadata == {"optuna_db_path": "study.db", "notes": "first try"}


@pytest.mark.parametrize("data", [{}, {"artifacts": None}, {"artifacts": [1], "metadata": "x", "run_id": 3}])
def test_missing_or_wrong_fields_are_read_as_empty(data: dict[str, Any]) -> None:
    """A field that is missing or has a wrong type is read as empty."""
    manifest = WorkerAnalyticsManifest.from_dict(data)
    assert manifest.artifacts == {}


def test_section_that_is_a_string_is_a_path() -> None:
    """A section that is a string is read as a path."""
    manifest = WorkerAnalyticsManifest.from_dict({"artifacts": {"tensorboard": "tb", "videos_dir": "videos"}})
    assert manifest.artifacts == {"tensorboard": {"relative_path": "tb"}, "videos_dir": "videos"}


def test_manifest_is_found_under_both_names(tmp_path: Path) -> None:
    """analytics.json is preferred to <run_id>_analytics.json; an invalid file raises ManifestInvalid."""
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
