"""run.prune: remove ended runs for good: directory, row and events.

Input: `runs` (references), or filters joined by AND (older_than_s, outcome, name, label, user), or neither:
then the runs that [retention] of the settings selects.  `dry_run` removes nothing.
Output: {dry_run, runs: the pruned runs, or with `dry_run` the runs to prune, kept: the runs that stay, with
the reason, count, bytes, complete}.
Caveats: live runs, pinned runs, and ended runs that a live run refers to stay.  One call prunes at most
PAGE_RUNS runs; if more remain, `complete` is false.  A dry run counts all selected runs.
"""

from collections.abc import Sequence
from dataclasses import replace

from mosaicd.core.retention import EndedRun
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError
from mosaicd.protocol.faults import Faults, invalid
from mosaicd.protocol.messages import ListRuns, PruneRuns
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.upkeep.retention import Choice, Retention

PAGE_RUNS = 500
MOST_NAMED = 1000

Kept = list[dict[str, str]]


async def handle(services: Services, caller: Caller, params: PruneRuns) -> Json:
    """Select runs and, unless this is a dry run, prune them."""
    _check(params)
    kept: Kept = []
    if params.runs is not None:
        choices = await _select_named(services, caller, params.runs, kept)
    elif _filters(params) or params.older_than_s is not None:
        choices = await _select_matching(services, caller, params, kept)
    else:
        choices = await _select_by_policy(services, caller)
    page, is_complete = choices[:PAGE_RUNS], len(choices) <= PAGE_RUNS
    if params.dry_run:
        listed, count, size_bytes = page, len(choices), sum(choice.size_bytes for choice in choices)
    else:
        listed = await services.retention.prune(page, caller.name)
        pruned = {choice.run.run_id for choice in listed}
        kept += [_kept(c.run, "it was pinned, or its shim has not exited yet") for c in page
                 if c.run.run_id not in pruned]  # fmt: skip
        count, size_bytes = len(listed), sum(choice.size_bytes for choice in listed)
    return {
        "dry_run": params.dry_run, "runs": [_view(choice) for choice in listed], "kept": kept[:PAGE_RUNS],
        "count": count, "bytes": size_bytes, "complete": is_complete,
    }  # fmt: skip


def _check(params: PruneRuns) -> None:
    faults = Faults()
    if params.runs is not None and (_filters(params) or params.older_than_s is not None):
        faults.add("runs", "cannot be used together with filters")
    if params.runs is not None and not 0 < len(params.runs) <= MOST_NAMED:
        faults.add("runs", f"must name 1 to {MOST_NAMED} runs")
    if params.older_than_s is not None and not 0 <= params.older_than_s < float("inf"):
        faults.add("older_than_s", "must be 0 or more seconds")
    faults.refuse()


def _filters(params: PruneRuns) -> Json:
    filters = {"outcome": params.outcome, "name": params.name, "label": params.label, "user": params.user}
    return {name: value for name, value in filters.items() if value is not None}


async def _select_by_policy(services: Services, caller: Caller) -> list[Choice]:
    if services.retention.policy.is_off:
        rule = "[retention] has no limits, so no run is selected; name runs, or give an age or another filter"
        raise invalid("runs", rule)
    return await services.retention.runs_to_prune(None if caller.is_admin else caller.uid)


async def _select_matching(services: Services, caller: Caller, params: PruneRuns, kept: Kept) -> list[Choice]:
    """Return the ended runs that match the filters; for an admin, runs of all users."""
    filters = replace(ListRuns(), **_filters(params))
    runs = await services.history.ended(filters, None if caller.is_admin else caller.uid)
    if params.older_than_s is not None:
        before = services.clock.wall() - params.older_than_s
        runs = [run for run in runs if run.finished_at < before]
    return await _without_kept(services.retention, runs, "chosen", kept)


async def _select_named(
    services: Services, caller: Caller, references: list[str], kept: Kept
) -> list[Choice]:
    """Return the ended runs with these references; the other references go to `kept`."""
    wanted: dict[str, None] = {}
    for reference in references:
        try:
            run = await services.runs.find(caller, reference)
        except MosaicError as error:
            kept.append({"run_id": reference[:64], "why": error.message, "error": error.name})
            continue
        if run.run_id in services.registry.live:
            kept.append({"run_id": run.run_id, "why": f"it has not ended ({run.state})", "error": "conflict"})
        else:
            wanted[run.run_id] = None
    runs = await services.history.ended(ListRuns(), None if caller.is_admin else caller.uid)
    selected = [run for run in runs if run.run_id in wanted]
    return await _without_kept(services.retention, selected, "named", kept)


async def _without_kept(retention: Retention, runs: Sequence[EndedRun], why: str, kept: Kept) -> list[Choice]:
    """Return the runs that may be pruned, measured; pinned runs and runs in use go to `kept`."""
    in_use = await retention.in_use()
    free: list[EndedRun] = []
    for run in runs:
        if run.pinned:
            kept.append(_kept(run, "it is pinned"))
        elif run.run_id in in_use:
            kept.append(_kept(run, "a live run refers to it"))
        else:
            free.append(run)
    sizes = await retention.measure([run.run_id for run in free])
    return [Choice(run, sizes[run.run_id], why) for run in free]


def _kept(run: EndedRun, why: str) -> dict[str, str]:
    return {"run_id": run.run_id, "why": why, "error": "conflict"}


def _view(choice: Choice) -> Json:
    run = choice.run
    return {
        "run_id": run.run_id, "name": run.name, "owner": run.owner, "outcome": run.outcome,
        "finished_at": run.finished_at, "bytes": choice.size_bytes, "why": choice.why,
    }  # fmt: skip
