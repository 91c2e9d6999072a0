"""run.hold and run.release: keep a waiting run from starting, and let it start again.

Input: run_id.  Output: the run.  Caveats: only a waiting run can be held; raises Conflict for a run that has
slots, which can be paused instead.  A hold of a held run, or a release of another run, changes nothing.
"""

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import RunRef
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: RunRef) -> Json:
    """Hold the run and return it."""
    return await _set_held(services, caller, params.run_id, True)


async def handle_release(services: Services, caller: Caller, params: RunRef) -> Json:
    """Release the run and return it."""
    return await _set_held(services, caller, params.run_id, False)


async def _set_held(services: Services, caller: Caller, run_id: str, held: bool) -> Json:
    def decide(run: Run) -> list[Event]:
        if run.held is held:
            return []
        if not run.is_waiting:
            raise Conflict(f"run {run.run_id} has started; pause it instead", state=run.state)
        return [Event(Kind.HOLD if held else Kind.RELEASE, services.clock.wall(), caller.name)]

    return await services.runs.change(run_id, decide)
