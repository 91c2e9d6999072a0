"""A worker's config from a file: flat, or nested in a run config.

Note: a file is a nested config if `metadata.worker.config` is an object; a missing `run_id` does not matter.
Every other file is read as a flat config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class ConfigError(NamedTuple):
    """One fault of a config: its path and a message."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidWorkerConfig(ValueError):
    """The config is invalid; `errors` has every fault."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        """Keep all errors; the text has one line for each."""
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))

    def payload(self) -> dict[str, Any]:
        """Return the payload of `run_failed`."""
        return {
            "error": str(self),
            "error_type": type(self).__name__,
            "errors": [error._asdict() for error in self.errors],
        }


def load_worker_config_from_file(path: str | Path) -> dict[str, Any]:
    """Return the worker's flat config from the JSON file `path`; raise InvalidWorkerConfig."""
    try:
        data = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InvalidWorkerConfig([ConfigError("", f"{path}: {error.strerror}")]) from error
    except ValueError as error:
        raise InvalidWorkerConfig([ConfigError("", f"{path}: not JSON ({error})")]) from error
    return extract_worker_config(data)


def extract_worker_config(data: Any) -> dict[str, Any]:
    """Return the worker's flat config from a flat or nested one; raise InvalidWorkerConfig for no object."""
    if not isinstance(data, Mapping):
        raise InvalidWorkerConfig([ConfigError("", f"must be an object, not {type(data).__name__}")])
    metadata = data.get("metadata")
    worker = metadata.get("worker") if isinstance(metadata, Mapping) else None
    config = worker.get("config") if isinstance(worker, Mapping) else None
    return dict(config) if isinstance(config, Mapping) else dict(data)
