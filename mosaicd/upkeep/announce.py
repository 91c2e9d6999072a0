"""What was committed, told to the operator: one catalogue event for each ledger event that says something.

Beats, spawns and requeues of detail stay in the ledger; the journal gets what somebody on call would read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mosaicd import log
from mosaicd.core.fsm import Kind
from mosaicd.core.legacy import ORIGIN
from mosaicd.log import Catalogue, Entry
from mosaicd.store.registry import Committed


def announce(batch: Sequence[Committed]) -> None:
    """Log a batch of commits."""
    for committed in batch:
        row = _ROWS.get(committed.event.kind)
        if row is not None and committed.run.origin != ORIGIN:  # an import is told once, as a whole
            entry, fields = row
            run = committed.run
            log.event(
                entry, run_id=run.run_id, attempt=run.attempt or None, seq=committed.seq, **fields(committed)
            )


def _end(committed: Committed) -> dict[str, Any]:
    run = committed.run
    return {"outcome": run.outcome, "cause": (run.cause or {}).get("kind"), "owner": run.owner}


def _fault(committed: Committed) -> dict[str, Any]:
    return {"cause": (committed.run.fault or {}).get("kind")}


def _request(committed: Committed) -> dict[str, Any]:
    return {"who": committed.event.who, "request": committed.event.kind.removesuffix("_requested")}


_ROWS: Mapping[Kind, tuple[Entry, Callable[[Committed], dict[str, Any]]]] = {
    Kind.SUBMITTED: (Catalogue.RUN_SUBMITTED, lambda c: {"name": c.run.name, "owner": c.run.owner}),
    Kind.DISPATCHED: (
        Catalogue.RUN_DISPATCHED,
        lambda c: {"slots": list(c.run.slots), "cpus": c.run.cpus_granted},
    ),
    Kind.STARTED: (Catalogue.RUN_STARTED, lambda c: {"pid": c.run.pid}),
    Kind.PAUSED: (Catalogue.RUN_PAUSED, lambda c: {"mode": c.event.data.get("mode")}),
    Kind.CONTINUED: (Catalogue.RUN_CONTINUED, lambda c: {}),
    Kind.BROKE: (Catalogue.RUN_FAULTED, _fault),
    Kind.SPAWN_FAILED: (Catalogue.RUN_FAULTED, _fault),
    Kind.DEADLINE_MISSED: (Catalogue.RUN_FAULTED, _fault),
    Kind.LOST: (Catalogue.SHIM_LOST, _fault),
    Kind.UNKILLABLE: (
        Catalogue.RUN_UNKILLABLE,
        lambda c: {"slots": list(c.run.slots), "pids": c.event.data.get("pids")},
    ),
    Kind.REQUEUED: (Catalogue.RUN_REQUEUED, lambda c: {"not_before": c.run.not_before}),
    Kind.FINISHED: (Catalogue.RUN_ENDED, _end),
    Kind.GAVE_UP: (Catalogue.RUN_ENDED, _end),
    Kind.WITHDRAWN: (Catalogue.RUN_ENDED, _end),
    Kind.STOP_REQUESTED: (Catalogue.REQUEST_MADE, _request),
    Kind.PAUSE_REQUESTED: (Catalogue.REQUEST_MADE, _request),
    Kind.RESUME_REQUESTED: (Catalogue.REQUEST_MADE, _request),
    Kind.HOLD: (Catalogue.REQUEST_MADE, _request),
    Kind.RELEASE: (Catalogue.REQUEST_MADE, _request),
    Kind.SET: (Catalogue.REQUEST_MADE, _request),
}
