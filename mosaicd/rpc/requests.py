"""The straight line that every request about one run follows: look up, record, return a view."""

from collections.abc import Callable, Sequence
from typing import Any

from mosaicd.core.fsm import Event
from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.protocol.errors import Conflict, NotFound
from mosaicd.rpc.context import Services


async def request(
    services: Services, run_id: str, decide: Callable[[Run], Sequence[Event]]
) -> dict[str, Any]:
    """Record what `decide` says of the newest row (nothing when it is so); Conflict for an ended run."""
    try:
        run = await services.registry.record_if(run_id, decide)
    except NotFound:
        found = await services.history.get(run_id)
        if found is None:
            raise
        raise ended(found[0]) from None
    return view(services, run)


def ended(run: Run) -> Conflict:
    """Return the error for a request to a run in TERM."""
    return Conflict(f"run {run.run_id} has ended ({run.outcome})", state=run.state, outcome=run.outcome)


def view(
    services: Services, run: Run, *, progress: Progress | None = None, duplicate: bool = False
) -> dict[str, Any]:
    """Return the wire's run object."""
    known = progress or services.registry.progress.get(run.run_id) or Progress()
    reason = services.dispatcher.reason(run)
    return run_object(
        run, known, str(services.rundirs.path(run.run_id)), duplicate=duplicate, reason=reason,
        pinned=run.run_id in services.registry.pins,
    )  # fmt: skip
