"""Log committed events: one log record for each event that matters to an operator.

Details, such as beats and spawns, are only in the ledger.
"""

from collections.abc import Callable, Mapping, Sequence

from mosaicd import log
from mosaicd.core.fsm import Kind
from mosaicd.core.legacy import ORIGIN
from mosaicd.log import Catalogue, Entry
from mosaicd.protocol import Json
from mosaicd.store.registry import Committed


def log_commits(batch: Sequence[Committed]) -> None:
    """Log the events of one transaction; subscribe this to the registry."""
    for committed in batch:
        row = _ROWS.get(committed.event.kind)
        if row is not None and committed.run.origin != ORIGIN:  # the import itself logs one record
            entry, fields = row
            run = committed.run
            log.event(
                entry, run_id=run.run_id, attempt=run.attempt or None, seq=committed.seq, **fields(committed)
            )


def _end_fields(committed: Committed) -> Json:
    run = committed.run
    return {"outcome": run.outcome, "cause": (run.cause or {}).get("kind"), "owner": run.owner}


def _fault_fields(committed: Committed) -> Json:
    return {"cause": (committed.run.fault or {}).get("kind")}


def _request_fields(committed: Committed) -> Json:
    return {"who": committed.event.who, "request": committed.event.kind.removesuffix("_requested")}


_ROWS: Mapping[Kind, tuple[Entry, Callable[[Committed], Json]]] = {
    Kind.SUBMITTED: (Catalogue.RUN_SUBMITTED, lambda c: {"name": c.run.name, "owner": c.run.owner}),
    Kind.DISPATCHED: (
        Catalogue.RUN_DISPATCHED,
        lambda c: {"slots": list(c.run.slots), "cpus": c.run.cpus_granted},
    ),
    Kind.STARTED: (Catalogue.RUN_STARTED, lambda c: {"pid": c.run.pid}),
    Kind.PAUSED: (Catalogue.RUN_PAUSED, lambda c: {"mode": c.event.data.get("mode")}),
    Kind.CONTINUED: (Catalogue.RUN_CONTINUED, lambda c: {}),
    Kind.BROKE: (Catalogue.RUN_FAULTED, _fault_fields),
    Kind.SPAWN_FAILED: (Catalogue.RUN_FAULTED, _fault_fields),
    Kind.DEADLINE_MISSED: (Catalogue.RUN_FAULTED, _fault_fields),
    Kind.LOST: (Catalogue.SHIM_LOST, _fault_fields),
    Kind.UNKILLABLE: (
        Catalogue.RUN_UNKILLABLE,
        lambda c: {"slots": list(c.run.slots), "pids": c.event.data.get("pids")},
    ),
    Kind.REQUEUED: (Catalogue.RUN_REQUEUED, lambda c: {"not_before": c.run.not_before}),
    Kind.FINISHED: (Catalogue.RUN_ENDED, _end_fields),
    Kind.GAVE_UP: (Catalogue.RUN_ENDED, _end_fields),
    Kind.WITHDRAWN: (Catalogue.RUN_ENDED, _end_fields),
    Kind.STOP_REQUESTED: (Catalogue.REQUEST_MADE, _request_fields),
    Kind.PAUSE_REQUESTED: (Catalogue.REQUEST_MADE, _request_fields),
    Kind.RESUME_REQUESTED: (Catalogue.REQUEST_MADE, _request_fields),
    Kind.HOLD: (Catalogue.REQUEST_MADE, _request_fields),
    Kind.RELEASE: (Catalogue.REQUEST_MADE, _request_fields),
    Kind.SET: (Catalogue.REQUEST_MADE, _request_fields),
}
