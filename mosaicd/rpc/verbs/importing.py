"""daemon.import: take the runs of a registry of the original MOSAIC over as history.

Input: path (absolute) of its SQLite file, dry_run.  Output: how many runs came, which were there already, and
what was not understood.  Caveats: the file is only read; nothing is ever started; what was live there is
`interrupted` here.  Doing it again brings only what is new.
"""

import asyncio
from collections import Counter
from pathlib import Path

from mosaicd import log
from mosaicd.core.legacy import Understood, understand
from mosaicd.core.run import Progress
from mosaicd.protocol import Json
from mosaicd.protocol.faults import invalid
from mosaicd.protocol.messages import Import
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.store.importing import Read, read

#: Sentences about what was not understood, each with how many rows it is of.
MOST_NOTES = 50


async def handle(services: Services, caller: Caller, params: Import) -> Json:
    """Read, understand, and store what is not there yet."""
    path = Path(params.path)
    if not path.is_absolute() or "\0" in params.path:
        raise invalid("path", "must be an absolute path")
    found = await asyncio.to_thread(read, path)
    notes: Counter[str] = Counter()
    runs = _understood(found, (caller.uid, caller.name), services.clock.wall(), notes)
    outcomes: Counter[str] = Counter()
    imported: list[str] = []
    known = 0
    for made in runs:
        run = made.steps[-1][0]
        if params.dry_run:
            is_new = await services.history.get(run.run_id) is None
        else:
            is_new = await services.registry.add_history(made.steps, Progress())
        known += not is_new
        if is_new:
            imported.append(run.run_id)
            outcomes[str(run.outcome)] += 1
    if not params.dry_run:
        log.event(log.Catalogue.HISTORY_IMPORTED, who=caller.name, path=path, count=len(imported))
    return {
        "path": str(path), "dry_run": params.dry_run, "rows": len(found.rows), "imported": len(imported),
        "known": known, "skipped": len(found.rows) - len(imported) - known, "outcomes": dict(outcomes),
        "run_ids": imported[:1000], "unknown_columns": found.unknown, "missing_columns": found.missing,
        "notes": [{"note": note, "rows": count} for note, count in notes.most_common(MOST_NOTES)],
    }  # fmt: skip


def _understood(found: Read, owner: tuple[int, str], now: float, notes: Counter[str]) -> list[Understood]:
    runs = []
    for row in found.rows:
        try:
            made = understand(row, owner, now)
        except ValueError as error:
            notes[str(error)] += 1
            continue
        notes.update(made.notes)
        runs.append(made)
    return runs
