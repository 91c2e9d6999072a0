"""Background tasks of the daemon: a task that fails is reported, and requests are still answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from mosaicd import log
from mosaicd.log import Catalogue

Work = Coroutine[Any, Any, None]


@asynccontextmanager
async def background(
    warn: Callable[[str], None], is_ending: Callable[[], bool], *works: Work
) -> AsyncIterator[None]:
    """Run `works` as tasks until the block is left; call `warn` with a sentence for each task that fails.

    While `is_ending` returns true, failures are ignored: a stopping daemon closes parts that the tasks use.
    """

    def report(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_ending():
            warn(_log_failure(task, error))

    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: "asyncio.Task[None]", error: BaseException) -> str:
    name = getattr(task.get_coro(), "__qualname__", "unknown")
    log.event(Catalogue.TASK_FAILED, error=error, task=name, why=repr(error))
    return log.with_code(
        Catalogue.TASK_FAILED, f"background task {name} failed and is off until the next start: {error!r}"
    )
