"""run.resume: request that a paused or pausing run continues.

Input: run_id, reason.  Output: the run.  Caveats: a held waiting run is released.  A run that gave up its
slots in the pause waits in the queue, in the state PAUSE.  A run that runs already is no error.
"""

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import Resume
from mosaicd.protocol.states import State, Want
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.verbs.pause import reason_of


async def handle(services: Services, caller: Caller, params: Resume) -> Json:
    """Record the request and return the run."""

    def decide(run: Run) -> list[Event]:
        if run.state is State.FAULT or run.want is Want.STOP:
            raise Conflict(f"run {run.run_id} is stopping", state=run.state, want=run.want)
        if run.want is Want.RUN and not run.held:
            return []
        return [Event(Kind.RESUME_REQUESTED, services.clock.wall(), caller.name, reason_of(params.reason))]

    return await services.runs.change(params.run_id, decide)
