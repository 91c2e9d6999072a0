"""run.get: return one run, live or ended."""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Return the run object."""
    run, progress = await services.runs.newest(params.run_id)
    return services.runs.view(run, progress=progress)
