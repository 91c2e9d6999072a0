"""The two protocols for a worker's own classes.  No class needs to inherit from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

ConfigT = TypeVar("ConfigT", bound="WorkerConfig")


@runtime_checkable
class WorkerConfig(Protocol):
    """A worker's settings: a run id, a seed, and conversion to and from a plain dictionary."""

    @property
    def run_id(self) -> str:
        """The id of the run."""

    @property
    def seed(self) -> int | None:
        """The seed of every random generator, or None for a random seed."""

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that `from_dict` converts to an equal config."""

    @classmethod
    def from_dict(cls: type[ConfigT], data: Mapping[str, Any]) -> ConfigT:
        """Return the config; raise `InvalidWorkerConfig` with every error."""


@runtime_checkable
class WorkerRuntime(Protocol):
    """The training or evaluation of a worker."""

    def run(self) -> dict[str, Any]:
        """Do the work, and return a summary that can be encoded as JSON."""
