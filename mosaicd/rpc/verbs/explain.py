"""run.explain: every fact that keeps a run from starting, and the smallest changes that would start it.

Input: run_id.  Output: {run_id, reason, facts, changes}.  If there are no facts, the run does not wait, or it
starts next.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Return the explanation for the run."""
    owners = {run.owner_uid: run.owner for run in services.registry.live.values()}
    return services.scheduler.explain(params.run_id, owners).to_dict()
