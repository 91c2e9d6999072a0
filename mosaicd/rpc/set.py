"""run.set: change priority, labels or name of a run that has not ended.

Input: run_id and any of priority, labels (all of them: what is not given goes), name.  Output: the run.
The event says what was there before, so that a reader of the ledger need not look for it.
"""

from collections.abc import Mapping
from typing import Any

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.params import check_params
from mosaicd.core.run import Run
from mosaicd.core.schema import Faults
from mosaicd.protocol.messages import SetFields, Submit
from mosaicd.rpc.context import Caller, Services
from mosaicd.rpc.requests import request


async def handle(services: Services, caller: Caller, params: SetFields) -> dict[str, Any]:
    """Record the new values and return the run."""
    faults = Faults()
    check_params(Submit(name=params.name, priority=params.priority or 0, labels=params.labels or {}), faults)
    faults.refuse()
    wanted = {"priority": params.priority, "labels": params.labels, "name": params.name}

    def decide(run: Run) -> list[Event]:
        changed: dict[str, Any] = {
            name: value for name, value in wanted.items() if value is not None and getattr(run, name) != value
        }
        if not changed:
            return []
        was = {name: _plain(getattr(run, name)) for name in changed}
        return [Event(Kind.SET, services.clock.wall(), caller.name, {**changed, "was": was})]

    return await request(services, params.run_id, decide)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
