"""worker.list: the installed workers with their capabilities and the schemas of their configs.

Input: refresh (query the interpreters again).  Output: {workers}; a broken worker is listed with its error.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import ListWorkers
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: ListWorkers) -> Json:
    """Return the list of discovery."""
    return {"workers": await services.discovery.list(params.refresh)}
