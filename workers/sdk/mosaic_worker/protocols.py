"""The two shapes a worker's own classes have.  Nothing needs to inherit from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

ConfigT = TypeVar("ConfigT", bound="WorkerConfig")


@runtime_checkable
class WorkerConfig(Protocol):
    """A worker's settings: a run id, a seed, and a way to and from a plain dictionary."""

    @property
    def run_id(self) -> str:
        """The run that these settings belong to."""

    @property
    def seed(self) -> int | None:
        """The seed of every random generator, or None for a fresh one."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` turns into an equal config."""

    @classmethod
    def from_dict(cls: type[ConfigT], data: Mapping[str, Any]) -> ConfigT:
        """Return the config; raise `InvalidWorkerConfig` with every error."""


@runtime_checkable
class WorkerRuntime(Protocol):
    """The work itself."""

    def run(self) -> dict[str, Any]:
        """Do the work, and return a summary that JSON can hold."""
