"""run.explain: every fact that keeps a run from starting, and the smallest changes that would start it.

Input: run_id.  Output: {run_id, reason, facts, changes}; no facts: it does not wait, or starts next.
"""

from dataclasses import replace
from typing import Any

from mosaicd.core.explain import Explanation, explain
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.context import Caller, Services


async def handle(services: Services, caller: Caller, params: RunRef) -> dict[str, Any]:
    """Ask the queue."""
    queue = services.dispatcher.turns.queue
    if queue.get(params.run_id) is None:
        return Explanation(params.run_id, None, [], []).to_dict()
    owners = {run.owner_uid: run.owner for run in services.registry.live.values()}
    return explain(params.run_id, queue, replace(services.dispatcher.turns.scene(), owners=owners)).to_dict()
