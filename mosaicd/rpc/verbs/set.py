"""run.set: change priority, labels or name of a run that has not ended.

Input: run_id and any of priority, name, and labels (replaces all labels) or label and unlabel (added to and
removed from the labels at the time of the commit, so concurrent requests lose nothing).  Output: the run.
The event has the new and the old values.
"""

from collections.abc import Mapping

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.params import check_params
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.faults import Faults
from mosaicd.protocol.messages import SetFields
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: SetFields) -> Json:
    """Record the new values and return the run."""
    faults = Faults()
    if params.labels is not None and (params.label or params.unlabel):
        faults.add(("labels",), "cannot be used together with label or unlabel")
    _check(params, params.labels or params.label, faults)

    def decide(run: Run) -> list[Event]:
        labels = _labels(params, run.labels)
        _check(params, labels or {}, Faults())
        wanted = {"priority": params.priority, "labels": labels, "name": params.name}
        changed: Json = {
            name: value for name, value in wanted.items() if value is not None and getattr(run, name) != value
        }
        if not changed:
            return []
        was = {name: _as_dict(getattr(run, name)) for name in changed}
        return [Event(Kind.SET, services.clock.wall(), caller.name, {**changed, "was": was})]

    return await services.runs.change(params.run_id, decide)


def _check(params: SetFields, labels: Mapping[str, str], faults: Faults) -> None:
    check_params({"name": params.name, "priority": params.priority, "labels": labels}, faults)
    faults.refuse()


def _labels(params: SetFields, present: Mapping[str, str]) -> dict[str, str] | None:
    """Return the new labels of the run; None if they stay as they are."""
    if params.label or params.unlabel:
        removed = frozenset(params.unlabel)
        return {key: value for key, value in {**present, **params.label}.items() if key not in removed}
    return params.labels


def _as_dict(value: object) -> object:
    """Return a mapping (the labels) as a dict for the event, and every other value unchanged."""
    return dict(value) if isinstance(value, Mapping) else value
