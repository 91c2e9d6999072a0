"""An attach: a submit that returns a live run, whose environment may differ from that of the submit."""

import asyncio

from mosaicd.core.digest import SET_BY_LAUNCH
from mosaicd.core.spec import InvalidSpec, Spec
from mosaicd.protocol import Json
from mosaicd.rpc.context import Services


async def with_differing_variables(services: Services, reply: Json, spec: Spec) -> Json:
    """Return the run object `reply` of an attach with the names of the variables that differ, if any do.

    Values are never in a reply.  An ended run has no environment to compare with.
    """
    try:
        kept = (await asyncio.to_thread(services.rundirs.load_environment, reply["run_id"])).all
    except (OSError, InvalidSpec):
        return reply
    names = (kept.keys() | spec.environment.keys()) - SET_BY_LAUNCH
    differing = sorted(name for name in names if kept.get(name) != spec.environment.get(name))
    return {**reply, "differing_variables": differing} if differing else reply
