"""run.get: one run, live or ended."""

from typing import Any

from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import NotFound
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.context import Caller, Services
from mosaicd.rpc.requests import view


async def handle(services: Services, caller: Caller, params: RunRef) -> dict[str, Any]:
    """Return the run object."""
    run, progress = await newest(services, params.run_id)
    return view(services, run, progress=progress)


async def newest(services: Services, run_id: str) -> tuple[Run, Progress]:
    """Return a run and its last values as of now; NotFound."""
    live = services.registry.live.get(run_id)
    if live is not None:
        return live, services.registry.progress.get(run_id) or Progress()
    found = await services.history.get(run_id)
    if found is None:
        raise NotFound(f"There is no run {run_id}")
    return found
