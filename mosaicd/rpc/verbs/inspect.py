"""daemon.inspect: inspect the registry and the state directory, for `mosaicctl doctor`.

Input: fix (make the safe repairs).  Output: facts about the registry, live runs, modes, directories and the
disk, and the repairs made.  Caveats: reads the complete registry and every run directory, in a thread and
over its own connection to SQLite; other requests are answered meanwhile.
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
    live = services.registry.live  # a run that ended during the inspection is no fault
    report["live"] = [run for run in report["live"] if run["run_id"] in live]
    if params.fix and services.registry.retention.pruned_left:
        await services.retention.finish()
        report["fixed"].append("removed the directories of pruned runs")
        report["registry"]["pruned_left"] = sorted(services.registry.retention.pruned_left)[:50]
    return report
