"""run.pin and run.unpin: keep a run from retention and from prune, or let them have it again.

Input: run_id.  Output: the run.  Caveats: a pin is no event, so an ended run may have one; asking for what
is so already is no error.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Pin a run and return it."""
    await services.registry.retention.pin(params.run_id, caller.name)
    return await _shown(services, params)


async def handle_unpin(services: Services, caller: Caller, params: RunRef) -> Json:
    """Take a run's pin and return the run."""
    await services.registry.retention.pin(params.run_id, caller.name, pinned=False)
    return await _shown(services, params)


async def _shown(services: Services, params: RunRef) -> Json:
    run, progress = await services.runs.newest(params.run_id)
    return services.runs.view(run, progress=progress)
