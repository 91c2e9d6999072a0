"""The analytics manifest: the paths of a run's artifacts.  One form is written, every known form is read.

Written: {"run_id", "worker_type", "artifacts": {"tensorboard"?, "wandb"?, "checkpoints"?, "logs_dir"?,
"videos_dir"?}, "metadata"}.  Read as well: CleanRL's flat keys (`tensorboard_dir`, `wandb_run_path`,
`checkpoints_dir`, `notes` ...) and a file named `<run_id>_analytics.json`.  Unknown keys are kept in
`metadata`.  Paths are relative to the manifest's directory if possible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_worker.durable import write_file
from mosaic_worker.jsonlines import plain

FILE_NAME = "analytics.json"

_SECTIONS = {"tensorboard": "relative_path", "wandb": "run_path", "checkpoints": "directory"}
_DIRECTORIES = ("logs_dir", "videos_dir")
_FLAT_KEYS = {
    "tensorboard_dir": ("tensorboard", "relative_path"),
    "wandb_run_path": ("wandb", "run_path"),
    "checkpoints_dir": ("checkpoints", "directory"),
}


class ManifestInvalid(ValueError):
    """The file is not a JSON object."""


@dataclass
class WorkerAnalyticsManifest:
    """The artifacts of one run; a section is a dictionary, a directory is a string."""

    run_id: str
    worker_type: str = ""
    artifacts: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the form that is written."""
        return {
            "run_id": self.run_id,
            "worker_type": self.worker_type,
            "artifacts": self.artifacts,
            "metadata": self.metadata,
        }

    def save(self, run_dir: Path) -> Path:
        """Write `analytics.json` into `run_dir` atomically and return its path."""
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / FILE_NAME
        write_file(path, json.dumps(plain(self.to_dict()), indent=2, sort_keys=True).encode("ascii") + b"\n")
        return path

    @classmethod
    def load(cls, path: Path) -> WorkerAnalyticsManifest:
        """Read any known form from `path`; raise ManifestInvalid or OSError."""
        try:
            data = json.loads(path.read_bytes().decode("utf-8-sig", "replace"))
        except ValueError as error:
            raise ManifestInvalid(f"{path}: not JSON ({error})") from error
        if not isinstance(data, dict):
            raise ManifestInvalid(f"{path}: not an object")
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerAnalyticsManifest:
        """Return the manifest for `data` in any known form."""
        sections = data["artifacts"] if isinstance(data.get("artifacts"), Mapping) else {}
        artifacts: dict[str, Any] = {}
        metadata = dict(data["metadata"]) if isinstance(data.get("metadata"), Mapping) else {}
        for key, value in sections.items():
            artifacts[key] = _section_value(key, value)
        for key, value in data.items():
            if key in ("run_id", "worker_type", "artifacts", "metadata") or value is None:
                continue
            if key in _FLAT_KEYS:
                name, inner = _FLAT_KEYS[key]
                section = artifacts.setdefault(name, {})
                if isinstance(section, dict) and section.get(inner) is None:
                    section[inner] = value
            elif key in _DIRECTORIES:
                artifacts.setdefault(key, value)
            else:
                metadata.setdefault(key, value)
        return cls(
            run_id=str(data.get("run_id") or ""),
            worker_type=str(data.get("worker_type") or ""),
            artifacts={key: value for key, value in artifacts.items() if value is not None},
            metadata=metadata,
        )


def find_manifest(run_dir: Path) -> Path | None:
    """Return the manifest in `run_dir` under any of its names, or None."""
    usual_path = run_dir / FILE_NAME
    if usual_path.is_file():
        return usual_path
    return min(run_dir.glob(f"*_{FILE_NAME}"), default=None) if run_dir.is_dir() else None


def _section_value(key: str, value: Any) -> Any:
    """Return an artifact section as a dictionary; other artifacts are returned unchanged."""
    if key in _SECTIONS:
        if isinstance(value, Mapping):
            return dict(value)
        return {_SECTIONS[key]: value} if isinstance(value, str) else None
    return value
