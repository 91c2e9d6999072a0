"""run.wait: wait until the run reaches a state.

Input: states (default TERM), timeout_s.  Output: the run.  Caveats: a state that the run has only for a
moment during the wait counts as reached.  Raises Conflict if the run ends before it
reaches one of the states.
"""

import asyncio
import math

from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict, TimedOut
from mosaicd.protocol.faults import Faults, invalid
from mosaicd.protocol.messages import Wait
from mosaicd.protocol.states import State, parse_state
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services

LONGEST_S = 366 * 86400.0


async def handle(services: Services, caller: Caller, params: Wait) -> Json:
    """Wait until the run has one of the states, and return it."""
    wanted = _states(params)
    timeout_s = params.timeout_s
    if timeout_s is not None and not (math.isfinite(timeout_s) and 0 <= timeout_s <= LONGEST_S):
        raise invalid("timeout_s", f"must be within 0..{LONGEST_S:g} seconds")
    try:
        async with asyncio.timeout(timeout_s):
            return await _wait_for(services, params.run_id, wanted)
    except TimeoutError:
        run, _ = await services.runs.newest(params.run_id)
        states = " or ".join(sorted(wanted))
        sentence = f"run {run.run_id} is {run.state} and not {states} after {timeout_s or 0:.1f} s"
        raise TimedOut(sentence, state=run.state, want=run.want) from None


async def _wait_for(services: Services, run_id: str, wanted: frozenset[State]) -> Json:
    with services.broadcaster.changed(run_id) as changes:
        while True:
            run, progress = await services.runs.newest(run_id)
            if run.state in wanted or changes.states & wanted:
                return services.runs.view(run, progress=progress)
            if run.is_final:
                states = " or ".join(sorted(wanted))
                raise Conflict(
                    f"run {run_id} has ended and cannot be {states}", state=run.state, outcome=run.outcome
                )
            await changes.wait()


def _states(params: Wait) -> frozenset[State]:
    faults, states = Faults(), set()
    for index, name in enumerate(params.states if params.states is not None else [State.TERM]):
        try:
            states.add(parse_state(name))
        except ValueError as error:
            faults.add(("states", index), str(error))
    if params.states is not None and not params.states:
        faults.add("states", "must name at least one state")
    faults.refuse()
    return frozenset(states)
