"""mosaic_tabular: tabular Q-learning and SARSA on Gymnasium's toy-text environments.

Discovery imports this package, so the import is cheap and needs neither numpy nor Gymnasium.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mosaic_worker import WorkerCapabilities, WorkerMetadata

from mosaic_tabular.config import json_schema

__version__ = "0.1.0"

WORKER_TYPE = "tabular"
WORKER_MODULE = "mosaic_tabular"
ACCEPTS_WORKER_ID = True


def get_worker_metadata() -> tuple[WorkerMetadata, WorkerCapabilities]:
    """Return metadata and capabilities, for the entry point `mosaic.workers`."""
    return WorkerMetadata(
        name="Tabular",
        version=__version__,
        description="Q-learning and SARSA on Gymnasium's toy-text environments",
        author="The mosaicd contributors",
        upstream_library="gymnasium",
        upstream_version=_upstream_version(),
        license="MIT",
    ), WorkerCapabilities(
        worker_type=WORKER_TYPE,
        supported_paradigms=("sequential",),
        env_families=("gymnasium", "toy_text"),
        action_spaces=("discrete",),
        observation_spaces=("discrete",),
        max_agents=1,
        supports_checkpointing=True,
        supports_pause_resume=True,
        requires_gpu=False,
        cpu_cores=1,
        estimated_memory_mb=128,
    )


def get_config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the worker's config."""
    return json_schema()


def _upstream_version() -> str:
    try:
        return version("gymnasium")
    except PackageNotFoundError:
        return ""
