"""The tasks of the dispatcher.

If the registry refuses a task (for example, the disk is full), the task is started again later.  After any
other error the daemon must exit.  After `close` no task starts; the next daemon carries out the rest.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError

#: The wait between a refusal and the next try.
RETRY_S = 1.0
#: On a full disk every run is refused each second; one log record in this time is enough.
REFUSALS_QUIET_S = 30.0


class GuardedTasks:
    """Start tasks, now or later; `on_fatal` is called with an error after which the daemon must exit."""

    def __init__(self, clock: Clock, on_fatal: Callable[[BaseException], None]) -> None:
        self._clock = clock
        self._on_fatal = on_fatal
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._quiet_until = 0.0

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called: no task starts any more."""
        return self._is_closed

    def start(self, work: Coroutine[Any, Any, None], retry: Callable[[], None]) -> None:
        """Start `work`; if the registry refuses it, call `retry` after RETRY_S."""
        if self._is_closed:
            work.close()
            return

        async def guarded() -> None:
            try:
                await work
            except MosaicError as error:
                self._log_refusal(error)
                self.call_later(RETRY_S, retry)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self._on_fatal(error)
                raise

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `action` after a delay, unless `close` comes first."""

        def call_unless_closed() -> None:
            if not self._is_closed:
                action()

        return asyncio.get_running_loop().call_later(delay_s, call_unless_closed)

    async def close(self) -> None:
        """Cancel all tasks; later calls start none."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _log_refusal(self, error: MosaicError) -> None:
        if self._clock.mono() >= self._quiet_until:
            self._quiet_until = self._clock.mono() + REFUSALS_QUIET_S
            log.event(Catalogue.COMMIT_RETRIED, why=error)
