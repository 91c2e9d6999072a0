"""Following one run's files: which attempt is read, when it is over, and what wakes the reader.

A follower that named no attempt goes on to the next one when the run is tried again.  "Over" is judged
before the file is read: what was written by then is all there is, and it is read to its end.
"""

from collections.abc import Awaitable, Callable

from mosaicd.core.run import Run
from mosaicd.protocol.errors import NotFound
from mosaicd.rpc.context import Services
from mosaicd.rpc.segments import Output

#: Reads on from where it was and sends it; False when there was nothing to read.
Step = Callable[[Output, int], Awaitable[bool]]


def chosen_attempt(run: Run, asked: int | None) -> int:
    """Return the attempt to read (0: there is none yet); NotFound for one that there is not."""
    if asked is not None and asked > run.attempt:
        newest = f"its newest is {run.attempt}" if run.attempt else "none has begun"
        raise NotFound(f"run {run.run_id} has no attempt {asked}; {newest}", attempts=run.attempt)
    return run.attempt if asked is None else asked


async def follow(
    services: Services, run_id: str, attempt: int, asked: int | None, name: str, step: Step,
    restart: Callable[[int], None],
) -> None:  # fmt: skip
    """Call `step` whenever there may be more, until all was read; `restart(attempt)` before another one."""
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
                        break  # it may be there by now
            if not is_over:
                continue
            if asked is not None or run.attempt <= attempt:
                return
            attempt += 1
            restart(attempt)
