"""The description of a worker, for discovery.

Both classes are frozen and have defaults for all optional fields, so a worker written for the original
MOSAIC constructs them unchanged.  Lists become tuples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class WorkerMetadata:
    """The origin of the worker, and the library that it is based on."""

    name: str
    version: str
    description: str = ""
    author: str = ""
    homepage: str = ""
    upstream_library: str = ""
    upstream_version: str = ""
    license: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class WorkerCapabilities:
    """The abilities and needs of the worker.

    `supports_pause_resume` means that the worker answers on $MOSAIC_CONTROL_FD.  If it does not answer in
    time, mosaicd freezes its process tree.
    """

    worker_type: str
    supported_paradigms: tuple[str, ...] = ()
    env_families: tuple[str, ...] = ()
    action_spaces: tuple[str, ...] = ()
    observation_spaces: tuple[str, ...] = ()
    max_agents: int = 1
    supports_self_play: bool = False
    supports_population: bool = False
    supports_checkpointing: bool = False
    supports_pause_resume: bool = False
    requires_gpu: bool = False
    gpu_memory_mb: int | None = None
    cpu_cores: int = 1
    estimated_memory_mb: int = 512

    def __post_init__(self) -> None:
        """Turn lists into tuples; raise ValueError for an empty worker_type."""
        if not self.worker_type:
            raise ValueError("worker_type: must not be empty")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, tuples as lists."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
