"""Telemetry: one JSON object per line on stdout, each line written as a unit.

A lock keeps the lines of several threads apart.  A line is written directly to the descriptor; Python's text
buffer is flushed first, so the order is kept.  Note: lines are not buffered; when a call returns, the pipe
has the line.  A `BrokenPipeError` is raised to the caller, because a worker without a reader should end.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from mosaic_worker.jsonlines import dumps

LIFECYCLE_EVENTS = (
    "run_started",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "heartbeat",
    "checkpoint_saved",
    "checkpoint_loaded",
    "paused",
    "resumed",
)


class TelemetryEmitter:
    """Writes the telemetry lines of one run; safe to share between threads.

    With `constant` (an object with `code`, `level`, `message`), a lifecycle call also writes to `logger`.
    """

    def __init__(
        self,
        run_id: str,
        worker_id: str | None = None,
        logger: logging.Logger | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """Write to `stream`; the default is the value of `sys.stdout` at each call."""
        self.run_id = run_id
        self.worker_id = worker_id
        self._logger = logger
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, name: str, payload: Mapping[str, Any] | None = None, constant: Any = None) -> None:
        """Write a lifecycle line {"event", "run_id", "timestamp", "payload"}."""
        body = dict(payload or {})
        self.line({"event": name, "run_id": self.run_id, "timestamp": time.time(), "payload": body})
        if constant is not None and self._logger is not None:
            self._log(constant, body)

    def run_started(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report that the work begins; `total_episodes` and `total_steps` in it give a progress bar."""
        self.event("run_started", payload, constant)

    def run_completed(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report that the work is complete."""
        self.event("run_completed", payload, constant)

    def run_failed(
        self,
        payload: Mapping[str, Any] | None = None,
        *,
        constant: Any = None,
        exc_info: BaseException | None = None,
    ) -> None:
        """Report that the work cannot continue; `exc_info` adds `error`, `error_type` and `traceback`."""
        self.event("run_failed", {**describe_error(exc_info), **dict(payload or {})}, constant)

    def run_cancelled(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report that the work ends early on request."""
        self.event("run_cancelled", payload, constant)

    def heartbeat(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report that the worker is alive."""
        self.event("heartbeat", payload, constant)

    def checkpoint_saved(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report that a checkpoint is saved to disk (not that a save has begun)."""
        self.event("checkpoint_saved", payload, constant)

    def checkpoint_loaded(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Report the checkpoint that the work resumed from."""
        self.event("checkpoint_loaded", payload, constant)

    def paused(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Answer a pause: the worker is idle until `resumed`."""
        self.event("paused", payload, constant)

    def resumed(self, payload: Mapping[str, Any] | None = None, *, constant: Any = None) -> None:
        """Answer a resume."""
        self.event("resumed", payload, constant)

    def step(
        self,
        *,
        episode_index: int,
        step_index: int,
        action: Any,
        observation: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        agent_id: str = "agent_0",
        policy_label: str = "",
        backend: str = "",
        **extra: Any,
    ) -> None:
        """Write a step line; `action` and `observation` become JSON texts; `extra` is kept unchanged."""
        self.line(
            {
                "type": "step",
                "run_id": self.run_id,
                "agent_id": agent_id,
                "episode_index": episode_index,
                "step_index": step_index,
                "action_json": dumps(action),
                "observation_json": dumps(observation),
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "policy_label": policy_label,
                "backend": backend,
                "ts_unix_ns": time.time_ns(),
                **self._worker_fields(),
                **extra,
            }
        )

    def episode(
        self,
        *,
        episode_index: int,
        total_reward: float,
        steps: int,
        terminated: bool,
        truncated: bool,
        agent_id: str = "agent_0",
        metadata: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Write an episode line; `metadata` is encoded as a JSON text; `extra` is kept unchanged."""
        self.line(
            {
                "type": "episode",
                "run_id": self.run_id,
                "agent_id": agent_id,
                "episode_index": episode_index,
                "total_reward": total_reward,
                "steps": steps,
                "terminated": terminated,
                "truncated": truncated,
                "metadata_json": dumps(dict(metadata or {})),
                "ts_unix_ns": time.time_ns(),
                **self._worker_fields(),
                **extra,
            }
        )

    def error(self, message: str, **extra: Any) -> None:
        """Write an error line: an error happened and the work continues."""
        self.line(
            {
                "type": "error",
                "run_id": self.run_id,
                "message": message,
                "ts_unix_ns": time.time_ns(),
                **extra,
            }
        )

    def line(self, record: Mapping[str, Any]) -> None:
        """Write `record` as one line; raise OSError if stdout is closed."""
        data = dumps(record).encode("ascii") + b"\n"
        with self._lock:
            _write(self._stream or sys.stdout, data)

    def _worker_fields(self) -> dict[str, Any]:
        return {"worker_id": self.worker_id} if self.worker_id else {}

    def _log(self, constant: Any, payload: Mapping[str, Any]) -> None:
        assert self._logger is not None
        level = logging.getLevelName(str(getattr(constant, "level", "INFO")).upper())
        self._logger.log(
            level if isinstance(level, int) else logging.INFO,
            "%s | %s | extra=%s",
            getattr(constant, "code", "LOG"),
            getattr(constant, "message", str(constant)),
            dumps(payload),
        )


def describe_error(error: BaseException | None) -> dict[str, Any]:
    """Return the payload fields for `error`; the traceback is cut to its last 8,000 characters."""
    if error is None:
        return {}
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"error": str(error), "error_type": type(error).__name__, "traceback": trace[-8000:]}


def keep_lines_whole(stream: TextIO) -> None:
    """Let `stream` write each line at once when the line is complete.

    A killed worker then loses no line, and lines of several processes on one pipe stay whole: an unbuffered
    `print` writes text and line feed separately.
    """
    if isinstance(stream, io.TextIOWrapper):  # another object replaced it, and buffers as it likes
        stream.reconfigure(line_buffering=True)


def _write(stream: TextIO, data: bytes) -> None:
    stream.flush()
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):  # stdout was captured or replaced
        stream.write(data.decode("ascii"))
        stream.flush()
        return
    view = memoryview(data)
    while view:
        view = view[_write_some(descriptor, view) :]


def _write_some(descriptor: int, view: memoryview) -> int:
    try:
        return os.write(descriptor, view)
    except BlockingIOError:  # the pipe is full, and another process made it non-blocking
        poll = select.poll()  # select would refuse descriptors above 1023
        poll.register(descriptor, select.POLLOUT)
        poll.poll()
        return 0
