"""mosaic_worker: the worker's side of mosaicd, with the standard library alone.

A worker may use all of it, a part, or nothing: the interface consists of lines on stdout, a few environment
variables and one entry point (man page mosaic-worker(7)).
"""

from mosaic_worker.analytics import ManifestInvalid, WorkerAnalyticsManifest, find_manifest
from mosaic_worker.checkpoints import Checkpoint, CheckpointInvalid, CheckpointStore, Skipped, verify
from mosaic_worker.cli import WorkerCLI
from mosaic_worker.config_loader import (
    ConfigError,
    InvalidWorkerConfig,
    extract_worker_config,
    load_worker_config_from_file,
)
from mosaic_worker.control import Control
from mosaic_worker.environment import WorkerEnvironment, new_run_id
from mosaic_worker.heartbeat import Heartbeat
from mosaic_worker.metadata import WorkerCapabilities, WorkerMetadata
from mosaic_worker.protocols import WorkerConfig, WorkerRuntime
from mosaic_worker.stacks import Stacks
from mosaic_worker.telemetry import TelemetryEmitter
from mosaic_worker.worker_run import WorkerRun

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointInvalid",
    "CheckpointStore",
    "ConfigError",
    "Control",
    "Heartbeat",
    "InvalidWorkerConfig",
    "ManifestInvalid",
    "Skipped",
    "Stacks",
    "TelemetryEmitter",
    "WorkerAnalyticsManifest",
    "WorkerCLI",
    "WorkerCapabilities",
    "WorkerConfig",
    "WorkerEnvironment",
    "WorkerMetadata",
    "WorkerRun",
    "WorkerRuntime",
    "extract_worker_config",
    "find_manifest",
    "load_worker_config_from_file",
    "new_run_id",
    "verify",
]
