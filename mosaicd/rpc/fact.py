"""worker.fact: facts of an attempt, in order, folded in one transaction.

Input: session token and facts.  Output: how many were taken, and those that have no row where the run
stands (refused, logged, nothing changed).  Caveats: a fact told twice is accepted and ignored.
"""

import logging
from typing import Any

from mosaicd import crash_points
from mosaicd.core import catchup
from mosaicd.core.fsm import Event
from mosaicd.core.run import Run
from mosaicd.protocol.messages import Facts
from mosaicd.rpc.context import Caller, Services

log = logging.getLogger(__name__)


async def handle(services: Services, caller: Caller, params: Facts) -> dict[str, Any]:
    """Fold the facts; then look whether the tree is empty, where one says so."""
    rejected: list[str] = []

    def decide(run: Run) -> list[Event]:
        rejected.clear()
        events, refused = catchup.from_facts(run, params.facts)
        rejected.extend(refused)
        return events

    services.shims.heard(params.run_id)
    crash_points.reach("fact.before_record")
    await services.registry.record_if(params.run_id, decide)
    crash_points.reach("fact.before_reply")
    if rejected:
        log.warning("run %s: refused facts that have no place now: %s", params.run_id, ", ".join(rejected))
    if any(fact.get("fact") in catchup.HINTS for fact in params.facts):
        services.dispatcher.poke(params.run_id)
    return {"accepted": len(params.facts) - len(rejected), "rejected": rejected}
