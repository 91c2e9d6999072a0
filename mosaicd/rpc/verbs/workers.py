"""worker.list: the installed workers, what each can do, and what its config takes.

Input: refresh (ask the interpreters again).  Output: {workers}; a broken one is listed with its error.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import ListWorkers
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: ListWorkers) -> Json:
    """Return what discovery knows."""
    return {"workers": await services.discovery.list(params.refresh)}
