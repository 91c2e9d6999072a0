"""worker.fact: facts of an attempt, in order, folded in one transaction.

Input: session token and facts.  Output: how many were taken, and those that have no row where the run
stands (refused, logged, nothing changed).  Caveats: a fact told twice is accepted and ignored.
"""

import logging
from typing import Any

from mosaicd.core import catchup
from mosaicd.core.fsm import Event
from mosaicd.core.run import Run
from mosaicd.protocol.errors import Unauthenticated
from mosaicd.protocol.messages import Facts
from mosaicd.rpc.context import Caller, Services

log = logging.getLogger(__name__)


async def handle(services: Services, caller: Caller, params: Facts) -> dict[str, Any]:
    """Fold the facts; then look whether the tree is empty, where one says so."""
    attempt = authenticate(services, caller, params.run_id, params.session_token)
    rejected: list[str] = []

    def decide(run: Run) -> list[Event]:
        rejected.clear()
        if run.attempt != attempt:
            rejected.extend(str(fact.get("fact")) for fact in params.facts)
            return []
        events, refused = catchup.from_facts(run, params.facts)
        rejected.extend(refused)
        return events

    await services.registry.record_if(params.run_id, decide)
    if rejected:
        log.warning("run %s: refused facts that have no place now: %s", params.run_id, ", ".join(rejected))
    if any(fact.get("fact") in catchup.HINTS for fact in params.facts):
        services.dispatcher.poke(params.run_id)
    return {"accepted": len(params.facts) - len(rejected), "rejected": rejected}


def authenticate(services: Services, caller: Caller, run_id: str, token: str) -> int:
    """Return the attempt that the session token speaks for; Unauthenticated otherwise."""
    run = services.registry.live.get(run_id)
    attempt = services.auth.session_attempt(run_id, token)
    if run is None or attempt is None or attempt != run.attempt or caller.uid != run.owner_uid:
        raise Unauthenticated("this is not a valid session token of a live run")
    return attempt
