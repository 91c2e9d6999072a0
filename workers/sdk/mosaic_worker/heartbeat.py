"""A thread that says "alive" at a fixed interval.

What a reader would get wrong: a beat from a thread proves that the process lives, not that the work goes
on.  With `only_when_marked` a beat is sent only if the working loop called `mark()` since the last one,
so a loop that hangs is noticed; a paused worker is no hanging worker and keeps beating.
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
    """Beats until it is closed; a context manager."""

    def __init__(
        self,
        emitter: TelemetryEmitter,
        interval_s: float = HEARTBEAT_INTERVAL_S,
        describe: Callable[[], Mapping[str, Any]] | None = None,
        only_when_marked: bool = False,
        is_paused: Callable[[], bool] | None = None,
    ) -> None:
        """`describe` gives the payload of a beat and runs in the beating thread."""
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
        """Note that the work goes on; costs one assignment."""
        self._marked = True

    def start(self) -> None:
        """Begin to beat; the first beat comes one interval from now."""
        self._thread.start()

    def close(self) -> None:
        """Stop beating; no beat follows after this returns."""
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
            except OSError:  # nobody listens any more; the working thread finds out at its own next line
                return
