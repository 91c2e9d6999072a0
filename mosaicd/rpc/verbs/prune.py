"""run.prune: remove ended runs for good: directory, row and events.

Input: `runs` (references), or filters joined by AND (older_than_s, outcome, name, label, user), or neither:
then what the settings give up now.  `dry_run` removes nothing.
Output: {dry_run, runs: what goes or went, kept: what was meant and stays, with why, count, bytes, complete}.
Caveats: live and pinned runs, and ended ones that a live run names, stay.  One call removes PAGE_RUNS at
most; `complete` false: ask again.  `count` and `bytes` of a dry run are of all.
"""

from collections.abc import Sequence
from dataclasses import replace

from mosaicd.core.retention import Ended
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
    """Choose, and unless this is a dry run, remove."""
    _check(params)
    kept: Kept = []
    if params.runs is not None:
        choices = await _named(services, caller, params.runs, kept)
    elif _filters(params) or params.older_than_s is not None:
        choices = await _fitting(services, caller, params, kept)
    else:
        choices = await _by_policy(services, caller)
    page, is_complete = choices[:PAGE_RUNS], len(choices) <= PAGE_RUNS
    if params.dry_run:
        told, count, size_bytes = page, len(choices), sum(choice.size_bytes for choice in choices)
    else:
        told = await services.retention.prune(page, caller.name)
        gone = {choice.run.run_id for choice in told}
        kept += [_stays(c.run, "it was pinned, or its shim has not exited yet") for c in page
                 if c.run.run_id not in gone]  # fmt: skip
        count, size_bytes = len(told), sum(choice.size_bytes for choice in told)
    return {
        "dry_run": params.dry_run, "runs": [_shown(choice) for choice in told], "kept": kept[:PAGE_RUNS],
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
    asked = {"outcome": params.outcome, "name": params.name, "label": params.label, "user": params.user}
    return {name: value for name, value in asked.items() if value is not None}


async def _by_policy(services: Services, caller: Caller) -> list[Choice]:
    if services.retention.policy.is_off:
        rule = "[retention] has no limits, so no run is selected; name runs, or give an age or another filter"
        raise invalid("runs", rule)
    return await services.retention.runs_to_prune(None if caller.is_admin else caller.uid)


async def _fitting(services: Services, caller: Caller, params: PruneRuns, kept: Kept) -> list[Choice]:
    """Every ended run that fits; an admin who names no user means everybody's."""
    filters = replace(ListRuns(), **_filters(params))
    runs = await services.history.ended(filters, None if caller.is_admin else caller.uid)
    if params.older_than_s is not None:
        before = services.clock.wall() - params.older_than_s
        runs = [run for run in runs if run.finished_at < before]
    return await _free(services.retention, runs, "chosen", kept)


async def _named(services: Services, caller: Caller, references: list[str], kept: Kept) -> list[Choice]:
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
    return await _free(services.retention, [run for run in runs if run.run_id in wanted], "named", kept)


async def _free(retention: Retention, runs: Sequence[Ended], why: str, kept: Kept) -> list[Choice]:
    """Return those of `runs` that nothing keeps, measured; the others go to `kept`."""
    in_use = await retention.in_use()
    free: list[Ended] = []
    for run in runs:
        if run.pinned:
            kept.append(_stays(run, "it is pinned"))
        elif run.run_id in in_use:
            kept.append(_stays(run, "a live run refers to it"))
        else:
            free.append(run)
    sizes = await retention.measure([run.run_id for run in free])
    return [Choice(run, sizes[run.run_id], why) for run in free]


def _stays(run: Ended, why: str) -> dict[str, str]:
    return {"run_id": run.run_id, "why": why, "error": "conflict"}


def _shown(choice: Choice) -> Json:
    run = choice.run
    return {
        "run_id": run.run_id, "name": run.name, "owner": run.owner, "outcome": run.outcome,
        "finished_at": run.finished_at, "bytes": choice.size_bytes, "why": choice.why,
    }  # fmt: skip
