"""Follow a file of a run: choose the attempt, read until the attempt is over, wake when the run changes.

If the request names no attempt, the follower continues with the next attempt when the run is retried.
Whether the attempt is over is decided before the file is read, so the last read reaches the end of the file.
"""

from collections.abc import Awaitable, Callable

from mosaicd.core.run import Run
from mosaicd.protocol.errors import NotFound
from mosaicd.rpc.context import Services
from mosaicd.rpc.segments import AttemptLog

#: Reads the next part of the file and sends it; returns False if there was nothing to read.
Step = Callable[[AttemptLog, int], Awaitable[bool]]


def attempt_to_read(run: Run, requested: int | None) -> int:
    """Return the requested or the newest attempt (0: none has begun); raise NotFound if it does not exist."""
    if requested is not None and requested > run.attempt:
        newest = f"its newest is {run.attempt}" if run.attempt else "none has begun"
        raise NotFound(f"run {run.run_id} has no attempt {requested}; {newest}", attempts=run.attempt)
    return run.attempt if requested is None else requested


async def follow(
    services: Services, run_id: str, attempt: int, requested: int | None, name: str, step: Step,
    restart: Callable[[int], None],
) -> None:  # fmt: skip
    """Call `step` whenever the file may have grown, and `restart(attempt)` before the next attempt."""
    with services.broadcaster.changed(run_id) as changes:
        while True:
            run, _ = await services.runs.newest(run_id)
            if attempt == 0 and run.attempt > 0:
                attempt = 1
                restart(attempt)
            async with services.files.attempt_log(run, attempt, name) as file:
                while True:
                    run, _ = await services.runs.newest(run_id)
                    is_over = run.is_final or run.attempt > attempt
                    while file is not None and await step(file, attempt):
                        pass
                    if is_over:
                        break
                    await changes.wait()
                    if file is None:
                        break  # the file may exist by now
            if not is_over:
                continue
            if requested is not None or run.attempt <= attempt:
                return
            attempt += 1
            restart(attempt)
