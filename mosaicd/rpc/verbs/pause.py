"""run.pause: request a pause of a run.

Input: run_id, mode (default: cooperative if the worker supports it, otherwise freeze), reason.  Output: the
run.  Caveats: the reply shows that the pause is wanted, not that the run is paused.  A run in INIT is held
instead.  A run that is starting is paused once it works.
"""

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import Pause
from mosaicd.protocol.states import PauseMode, State, Want
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: Pause) -> Json:
    """Record the request and return the run."""

    def decide(run: Run) -> list[Event]:
        check_can_pause(run, params.mode)
        at = services.clock.wall()
        if run.is_waiting and run.state is State.INIT:
            return [] if run.held else [Event(Kind.HOLD, at, caller.name, reason_of(params.reason))]
        mode = params.mode or default_mode(run)
        if run.want is Want.PAUSE and (params.mode is None or run.pause_mode == mode):
            return []
        return [Event(Kind.PAUSE_REQUESTED, at, caller.name, {"mode": mode, **reason_of(params.reason)})]

    return await services.runs.change(params.run_id, decide)


def default_mode(run: Run) -> PauseMode:
    """Return how this run is paused if the request names no mode."""
    return PauseMode.COOPERATIVE if run.can_pause else PauseMode.FREEZE


def check_can_pause(run: Run, mode: str | None) -> None:
    """Raise Conflict if the run is ending or its worker does not support the mode."""
    if run.state is State.FAULT:
        raise Conflict(f"run {run.run_id} is in FAULT: its process tree is being ended", state=run.state)
    if run.want is Want.STOP:
        raise Conflict(f"run {run.run_id} is stopping", state=run.state, want=run.want)
    if mode == PauseMode.COOPERATIVE and not run.can_pause:
        raise Conflict("this worker does not declare supports_pause_resume; use mode freeze", state=run.state)
    if mode == PauseMode.RELEASE and not run.can_checkpoint:
        raise Conflict(
            "this worker does not declare supports_checkpointing; use mode freeze", state=run.state
        )


def reason_of(reason: str | None) -> dict[str, str]:
    """Return the event field for a reason, if one was given."""
    return {"reason": reason} if reason else {}
