"""worker.fact: facts of an attempt, in order, recorded in one transaction.

Input: session token and facts.  Output: the number of accepted facts, and the rejected facts, which are not
legal in the run's state; they are logged and change nothing.  Caveats: a repeated fact is accepted and
ignored.  If pauses and resumes come together, only the ledger shows which were recorded before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mosaicd import crash_points, log
from mosaicd.core import missed_events
from mosaicd.core.fsm import Event
from mosaicd.core.run import Run
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.records.reports import Facts
from mosaicd.protocol.states import State
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: Facts) -> Json:
    """Record the facts; if one hints that the process tree is empty, carry out what the run is owed."""
    rejected: list[str] = []
    facts = await _not_recorded(services, params)

    def decide(run: Run) -> list[Event]:
        rejected.clear()
        events, refused = missed_events.from_facts(run, facts)
        rejected.extend(refused)
        return events

    services.shims.note_message(params.run_id)
    crash_points.reach("fact.before_record")
    run = await services.registry.record_if(params.run_id, decide)
    crash_points.reach("fact.before_reply")
    if rejected:
        entry = Catalogue.FACT_LATE if run.state is State.FAULT else Catalogue.FACT_REFUSED
        log.event(entry, run_id=run.run_id, state=run.state, facts=", ".join(rejected))
    if any(fact.get("fact") in missed_events.HINTS for fact in params.facts):
        services.dispatcher.carry_out_owed(params.run_id)
    return {"accepted": len(params.facts) - len(rejected), "rejected": rejected}


async def _not_recorded(services: Services, params: Facts) -> Sequence[Mapping[str, Any]]:
    """Return the facts without those that an earlier daemon recorded and died before it replied."""
    if sum(fact.get("fact") in missed_events.PAUSE_FACTS for fact in params.facts) < 2:
        return params.facts
    newest = await services.history.newest_pause_fact(params.run_id)
    return params.facts if newest is None else missed_events.not_recorded(params.facts, newest)
