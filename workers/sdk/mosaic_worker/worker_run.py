"""The worker's side of one run: emitter, control, heartbeat and checkpoints, opened and closed together.

Inside `with WorkerRun(...) as run:` an exception is reported as `run_failed` (a Ctrl-C as `run_cancelled`)
and then propagates.  The worker reports every other end itself, with `run.completed(summary)` or
`run.cancelled(payload)`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mosaic_worker.checkpoints import KEEP, CheckpointStore
from mosaic_worker.config_loader import InvalidWorkerConfig
from mosaic_worker.control import Control
from mosaic_worker.environment import WorkerEnvironment, new_run_id
from mosaic_worker.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat
from mosaic_worker.stacks import Stacks
from mosaic_worker.telemetry import TelemetryEmitter, keep_lines_whole

EXIT_STOPPED = 0
EXIT_INTERRUPTED = 130


class WorkerRun:
    """The objects that a worker uses while it runs."""

    def __init__(
        self,
        environment: WorkerEnvironment | None = None,
        run_id: str | None = None,
        worker_id: str | None = None,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
        only_when_marked: bool = False,
        keep_checkpoints: int = KEEP,
    ) -> None:
        """Use mosaicd's variables, else the arguments, else a new run id and `runs/<run_id>`."""
        env = environment or WorkerEnvironment.from_environ()
        name = env.run_id or run_id or new_run_id()
        run_dir = env.run_dir or Path("runs") / name
        checkpoint_dir = env.checkpoint_dir or run_dir / "checkpoints"
        self.environment = replace(
            env,
            run_id=name,
            run_dir=run_dir,
            checkpoint_dir=checkpoint_dir,
            worker_id=env.worker_id or worker_id,
        )
        self.run_id: str = name
        self.run_dir: Path = run_dir
        self.emitter = TelemetryEmitter(name, self.environment.worker_id)
        self.control = Control(self.emitter, env.control_fd)
        self.heartbeat = Heartbeat(
            self.emitter,
            heartbeat_interval_s,
            only_when_marked=only_when_marked,
            is_paused=lambda: self.control.is_paused,
        )
        self.checkpoints = CheckpointStore(checkpoint_dir, keep_checkpoints, env.resume_from)
        self.stacks = Stacks(env.stacks_file)
        self._has_ended = False

    def completed(self, summary: Mapping[str, Any] | None = None) -> None:
        """Report `run_completed`; no heartbeat follows."""
        self.heartbeat.close()
        self._has_ended = True
        self.emitter.run_completed(summary)

    def cancelled(self, payload: Mapping[str, Any] | None = None) -> None:
        """Report `run_cancelled` with the reason of the stop; no heartbeat follows."""
        self.heartbeat.close()
        self._has_ended = True
        self.emitter.run_cancelled({"reason": self.control.stop_reason, **dict(payload or {})})

    @property
    def stop_exit_code(self) -> int:
        """The exit code after a stop: 0, or 130 after a Ctrl-C in a terminal."""
        return EXIT_INTERRUPTED if self.control.stop_reason == "SIGINT" else EXIT_STOPPED

    def __enter__(self) -> WorkerRun:
        keep_lines_whole(sys.stdout)
        if threading.current_thread() is threading.main_thread():
            self.control.install_signals()
        self.stacks.announce()
        self.heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.close()
        if error is not None and not self._has_ended:
            self._report_failure(error)
        self.control.close()
        self.stacks.close()

    def _report_failure(self, error: BaseException) -> None:
        """Report the exception that leaves the `with` block, except SystemExit and a closed stdout."""
        try:
            if isinstance(error, KeyboardInterrupt):
                self.emitter.run_cancelled({"reason": "SIGINT"})
            elif isinstance(error, (BrokenPipeError, SystemExit, GeneratorExit)):
                return
            elif isinstance(error, InvalidWorkerConfig):
                self.emitter.run_failed(error.payload())
            else:
                self.emitter.run_failed(exc_info=error)
        except OSError:  # stdout is closed; the exit code and the traceback on stderr still report the error
            return
