"""The command line: read the config, report all errors, train, exit.

Exit codes: 0 completed or stopped on request, 2 invalid config, 130 Ctrl-C, 1 any other error.  Signal
handlers are set before numpy and Gymnasium are imported, so an early SIGTERM also ends cleanly.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from mosaic_worker import (
    InvalidWorkerConfig,
    TelemetryEmitter,
    WorkerCLI,
    WorkerEnvironment,
    WorkerRun,
)
from mosaic_worker.cli import EXIT_CONFIG

from mosaic_tabular import __version__
from mosaic_tabular.config import TabularConfig, parse, with_presets


def main(argv: list[str] | None = None) -> int:
    """Run the worker and return its exit code."""
    parser = WorkerCLI.create_base_parser(
        "mosaic_tabular", "Tabular Q-learning and SARSA on Gymnasium's toy-text environments.", __version__
    )
    args = parser.parse_args(argv)
    WorkerCLI.setup_logging(args.log_level)
    environment = WorkerEnvironment.from_environ()
    if args.run_dir is not None and environment.run_dir is None:
        environment = replace(environment, run_dir=args.run_dir)
    try:
        if args.dry_run:
            return _dry_run(_check_config(WorkerCLI.load_config(args, environment)), args)
        return _train(args, environment)
    except InvalidWorkerConfig as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG


def _check_config(data: dict[str, object]) -> TabularConfig:
    """Return the config; raise InvalidWorkerConfig with all errors of the config and of its environment."""
    config, errors = parse(data)
    env_id, env_kwargs = data.get("env_id", TabularConfig.env_id), data.get("env_kwargs", {})
    if isinstance(env_id, str) and env_id and isinstance(env_kwargs, dict):
        from mosaic_tabular.worlds import check

        errors = [*errors, *check(env_id, env_kwargs)]
    if config is None or errors:
        raise InvalidWorkerConfig(errors)
    return config


def _train(args: argparse.Namespace, environment: WorkerEnvironment) -> int:
    """Train and return the exit code; an invalid config is reported as `run_failed` and raised."""
    try:
        data = WorkerCLI.load_config(args, environment)
    except InvalidWorkerConfig as error:
        TelemetryEmitter(environment.run_id or args.run_id or "", args.worker_id).run_failed(error.payload())
        raise
    settings, _ = parse(data)
    run = WorkerRun(
        environment,
        run_id=settings.run_id if settings else str(data.get("run_id") or "") or None,
        worker_id=settings.worker_id if settings else None,
        heartbeat_interval_s=settings.heartbeat_interval_s if settings else 10.0,
        only_when_marked=True,
        keep_checkpoints=settings.keep_checkpoints if settings else 1,
    )
    with run:
        from mosaic_tabular.trainer import TabularRuntime

        config = _check_config(data)
        if run.control.stop_requested:
            run.cancelled()
            return run.stop_exit_code
        summary = TabularRuntime(config, run).run()
        if args.emit_summary:
            WorkerCLI.print_summary(summary)
        return run.stop_exit_code if summary["status"] == "cancelled" else 0


def _dry_run(config: TabularConfig, args: argparse.Namespace) -> int:
    """Print that the config is valid, or print it with all defaults (--emit-summary); return 0."""
    from mosaic_tabular.worlds import resolve

    resolved = resolve(config.env_id)
    if resolved.note:
        print(resolved.note, file=sys.stderr)
    summary = {**with_presets(config, resolved.family).to_dict(), "env_id": resolved.env_id, "dry_run": True}
    if args.emit_summary:
        WorkerCLI.print_summary(summary)
    else:
        print(f"{config.algo} on {resolved.env_id}: the config is valid", file=sys.stderr)
    return 0
