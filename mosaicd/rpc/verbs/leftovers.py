"""run.leftovers: what the newest attempt of a run left behind outside of its run directory.

Input: run_id.  Output: the record of leftovers.json, with its defaults if nothing was left.  Caveat: the shim
completes the file when it exits, a moment after the end of the run.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Return the leftovers of the run."""
    run, _ = await services.runs.newest(params.run_id)
    leftovers = await services.files.leftovers(run)
    return leftovers.changed(run_id=run.run_id, attempt=run.attempt).to_json()
