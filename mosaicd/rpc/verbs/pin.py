"""run.pin and run.unpin: protect a run from retention and prune, or end the protection.

Input: run_id.  Output: the run.  Caveats: a pin is not an event, so an ended run can be pinned.  To pin a
pinned run, or to unpin another, is no error and changes nothing.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Pin a run and return it."""
    await services.registry.retention.pin(params.run_id, caller.name)
    return await _view(services, params)


async def handle_unpin(services: Services, caller: Caller, params: RunRef) -> Json:
    """Unpin a run and return it."""
    await services.registry.retention.pin(params.run_id, caller.name, pinned=False)
    return await _view(services, params)


async def _view(services: Services, params: RunRef) -> Json:
    run, progress = await services.runs.newest(params.run_id)
    return services.runs.view(run, progress=progress)
