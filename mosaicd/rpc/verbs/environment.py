"""run.environment: return the environment that a run was submitted with.

Input: run_id.  Output: {run_id, variables, secrets}: the kept variables, and the names of the others, whose
values are in no reply.  Caveats: only for the owner of the run; an admin gets NotPermitted.
"""

import asyncio

from mosaicd.core.spec import InvalidSpec
from mosaicd.protocol import Json
from mosaicd.protocol.errors import NotFound, NotPermitted, Unavailable
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Return the variables and the names of the secrets."""
    run, _ = await services.runs.newest(params.run_id)
    if run.owner_uid != caller.uid:
        raise NotPermitted(f"the environment of run {run.run_id} is for its owner {run.owner} alone")
    rundirs = services.rundirs
    try:
        _, names = await asyncio.to_thread(rundirs.load_spec, run.run_id)
        kept = (await asyncio.to_thread(rundirs.load_kept, run.run_id)).kept
    except FileNotFoundError:
        raise NotFound(f"the directory of run {run.run_id} does not exist") from None
    except (OSError, InvalidSpec) as error:
        raise Unavailable(f"the files of run {run.run_id} cannot be read: {error}") from error
    secrets = [name for name in names if name not in kept]
    return {"run_id": run.run_id, "variables": dict(sorted(kept.items())), "secrets": secrets}
