"""daemon.inspect: look over registry and state directory, for the doctor.

Input: fix (repair what is safe to).  Output: facts: registry, live runs, modes, directories, disk, and what
was fixed.  Caveats: reads the whole registry and every run directory, in a thread, over a connection of its
own; requests go on meanwhile.
"""

import asyncio

from mosaicd.protocol import Json
from mosaicd.protocol.messages import Inspect
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.upkeep.inspection import inspect


async def handle(services: Services, caller: Caller, params: Inspect) -> Json:
    """Return the facts."""
    report = await asyncio.to_thread(inspect, services.settings, services.clock.wall(), fix=params.fix)
    live = services.registry.live  # newer than what was read: an end in between is no fault
    report["live"] = [run for run in report["live"] if run["run_id"] in live]
    if params.fix and services.registry.retention.pruned_left:
        await services.retention.finish()
        report["fixed"].append("removed the directories of pruned runs")
        report["registry"]["pruned_left"] = sorted(services.registry.retention.pruned_left)[:50]
    return report
