"""run.stop: request the end of a run: TERM, CONT, grace period, KILL for its process tree.

Input: run_id, grace_s (0 is allowed; default: the run's own), signal (default: the run's own), reason.
Output: the run.
Caveats: the reply does not wait for the end.  The outcome is `cancelled`, unless the run ended by itself
before the shim began to stop it.  A second stop can only shorten the grace period,
or send another signal.  A stop of an ended run is
no error and returns the run.
"""

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.params import check_no_grace, check_params
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.errors import NotFound
from mosaicd.protocol.faults import Faults
from mosaicd.protocol.messages import Stop
from mosaicd.protocol.signals import KILL
from mosaicd.protocol.states import Want
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.verbs.pause import reason_of


async def handle(services: Services, caller: Caller, params: Stop) -> Json:
    """Record the request and return the run."""
    faults = Faults()
    check_params({"grace_s": params.grace_s}, faults)
    check_no_grace(params.signal, params.grace_s, faults)
    faults.refuse()
    grace, signal = (0.0, None) if params.signal == KILL else (params.grace_s, params.signal)

    def decide(run: Run) -> list[Event]:
        present: Json = dict(run.stop or {}) if run.want is Want.STOP else {}
        is_other = signal is not None and signal != present.get("signal")
        if run.want is Want.STOP and not is_shorter(run, grace) and not is_other:
            return []
        data: Json = reason_of(params.reason)
        asked = {"grace_s": grace, "signal": signal}
        if present and not is_shorter(run, grace):
            asked["grace_s"] = present.get("grace_s")
        data |= {name: present.get(name) if value is None else value for name, value in asked.items()}
        data = {name: value for name, value in data.items() if value is not None}
        return [Event(Kind.STOP_REQUESTED, services.clock.wall(), caller.name, data)]

    try:
        return services.runs.view(await services.registry.record_if(params.run_id, decide))
    except NotFound:
        ended = await services.history.get(params.run_id)
        if ended is None:
            raise
        return services.runs.view(ended[0], progress=ended[1])


def is_shorter(run: Run, grace_s: float | None) -> bool:
    """Return whether a further stop has a shorter grace period than the present stop of the run."""
    present_s = (run.stop or {}).get("grace_s", run.grace_s)
    return grace_s is not None and (present_s is None or grace_s < present_s)
