"""The command line that every worker shares.

`--grpc` and `--grpc-target` are accepted for older configs and have no effect.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mosaic_worker.config_loader import load_worker_config_from_file
from mosaic_worker.environment import WorkerEnvironment
from mosaic_worker.jsonlines import dumps
from mosaic_worker.protocols import WorkerConfig

EXIT_CONFIG = 2

ConfigT = TypeVar("ConfigT", bound=WorkerConfig)


class WorkerCLI:
    """Functions for the `main` of a worker."""

    @staticmethod
    def create_base_parser(
        prog: str, description: str, version: str | None = None
    ) -> argparse.ArgumentParser:
        """Return a parser with the flags that every worker has."""
        parser = argparse.ArgumentParser(prog=prog, description=description)
        parser.add_argument("--config", type=Path, metavar="FILE", help="JSON config, flat or nested")
        parser.add_argument("--run-id", metavar="ID", help="the run's id, if the config has none")
        parser.add_argument("--worker-id", metavar="ID", help="the worker's name in its telemetry")
        parser.add_argument(
            "--run-dir", type=Path, metavar="DIR", help="directory for artifacts (default: runs/RUN_ID)"
        )
        parser.add_argument("--dry-run", action="store_true", help="check the config and exit")
        parser.add_argument("--emit-summary", action="store_true", help="print a summary as the last line")
        parser.add_argument("--log-level", default="WARNING", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
        parser.add_argument("--grpc", action="store_true", help=argparse.SUPPRESS)
        parser.add_argument("--grpc-target", help=argparse.SUPPRESS)
        if version is not None:
            parser.add_argument("--version", action="version", version=f"{prog} {version}")
        return parser

    @staticmethod
    def setup_logging(level: str = "WARNING") -> None:
        """Send log records to stderr; stdout is for telemetry."""
        logging.basicConfig(
            level=level,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            force=True,
        )

    @staticmethod
    def load_config(args: argparse.Namespace, environment: WorkerEnvironment) -> dict[str, Any]:
        """Return the flat config of `--config`, else of $MOSAIC_CONFIG_FILE, else an empty one.

        `run_id` and `worker_id` come from mosaicd, else from the flags, else from the file.
        """
        path = args.config or environment.config_file
        config = load_worker_config_from_file(path) if path is not None else {}
        for key, value in (
            ("run_id", environment.run_id or args.run_id),
            ("worker_id", args.worker_id or environment.worker_id),
        ):
            if value:
                config[key] = value
        return config

    @staticmethod
    def load_and_validate_config(path: Path, config_class: type[ConfigT]) -> ConfigT:
        """Return `config_class.from_dict` of the file; raise InvalidWorkerConfig with every error."""
        return config_class.from_dict(load_worker_config_from_file(path))

    @staticmethod
    def print_summary(summary: Mapping[str, Any]) -> None:
        """Print {"summary": ...} as one line on stdout; this line is not telemetry."""
        print(dumps({"summary": dict(summary)}), flush=True)
