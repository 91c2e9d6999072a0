"""A thread that sends heartbeats at a fixed interval.

Note: a heartbeat from a thread proves that the process is alive, not that the work makes progress.  With
`only_when_marked` a heartbeat is sent only if the working loop called `mark()` since the last one, so that
mosaicd detects a loop that hangs.  A paused worker keeps sending heartbeats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Callable

from mosaic_worker.telemetry import TelemetryEmitter

HEARTBEAT_INTERVAL_S = 30.0


class Heartbeat:
    """Sends heartbeats until it is closed; a context manager."""

    def __init__(
        self,
        emitter: TelemetryEmitter,
        interval_s: float = HEARTBEAT_INTERVAL_S,
        describe: Callable[[], Mapping[str, Any]] | None = None,
        only_when_marked: bool = False,
        is_paused: Callable[[], bool] | None = None,
    ) -> None:
        """Call `describe` in the heartbeat thread for the payload of each heartbeat."""
        self.describe = describe
        self._emitter = emitter
        self._interval_s = interval_s
        self._only_when_marked = only_when_marked
        self._is_paused = is_paused
        self._marked = True
        self._done = threading.Event()
        self._started_mono = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mosaic-heartbeat", daemon=True)

    def mark(self) -> None:
        """Record progress of the working loop; costs one assignment."""
        self._marked = True

    def start(self) -> None:
        """Start the thread; the first heartbeat follows after one interval."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; no heartbeat is sent after this returns."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            is_paused = self._is_paused is not None and self._is_paused()
            if self._only_when_marked and not self._marked and not is_paused:
                continue
            self._marked = False
            payload = {
                "status": "paused" if is_paused else "running",
                "uptime_s": round(time.monotonic() - self._started_mono, 3),
                **(self.describe() if self.describe is not None else {}),
            }
            try:
                self._emitter.heartbeat(payload)
            except OSError:  # stdout is closed; the working thread gets the same error at its next line
                return
