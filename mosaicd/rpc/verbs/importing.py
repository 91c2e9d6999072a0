"""daemon.import: copy the runs of a registry of the original MOSAIC into the history.

Input: path (absolute) of its SQLite file, dry_run.  Output: the numbers of new, known and skipped runs, and
notes about data that was not understood.  Caveats: the file is only read, and no run is started.  A run that
was live there gets the outcome `interrupted`.  A second import adds only new runs.
"""

import asyncio
from collections import Counter
from pathlib import Path

from mosaicd import log
from mosaicd.core.legacy import Conversion, convert
from mosaicd.core.run import Progress
from mosaicd.protocol import Json
from mosaicd.protocol.faults import invalid
from mosaicd.protocol.messages import Import
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.store.importing import OldRuns, read

#: The most different notes in a reply.
MOST_NOTES = 50


async def handle(services: Services, caller: Caller, params: Import) -> Json:
    """Read the file, convert its rows, and store the runs that the history does not have."""
    path = Path(params.path)
    if not path.is_absolute() or "\0" in params.path:
        raise invalid("path", "must be an absolute path")
    table = await asyncio.to_thread(read, path)
    notes: Counter[str] = Counter()
    runs = _convert(table, (caller.uid, caller.name), services.clock.wall(), notes)
    outcomes: Counter[str] = Counter()
    imported: list[str] = []
    known = 0
    for converted in runs:
        run = converted.steps[-1][0]
        if params.dry_run:
            is_new = await services.history.get(run.run_id) is None
        else:
            is_new = await services.registry.add_history(converted.steps, Progress())
        known += not is_new
        if is_new:
            imported.append(run.run_id)
            outcomes[str(run.outcome)] += 1
    if not params.dry_run:
        log.event(log.Catalogue.HISTORY_IMPORTED, who=caller.name, path=path, count=len(imported))
    return {
        "path": str(path), "dry_run": params.dry_run, "rows": len(table.rows), "imported": len(imported),
        "known": known, "skipped": len(table.rows) - len(imported) - known, "outcomes": dict(outcomes),
        "run_ids": imported[:1000], "unknown_columns": table.unknown, "missing_columns": table.missing,
        "notes": [{"note": note, "rows": count} for note, count in notes.most_common(MOST_NOTES)],
    }  # fmt: skip


def _convert(table: OldRuns, owner: tuple[int, str], now: float, notes: Counter[str]) -> list[Conversion]:
    """Return the runs of the rows; a row that cannot be converted is only counted in `notes`."""
    runs = []
    for row in table.rows:
        try:
            converted = convert(row, owner, now)
        except ValueError as error:
            notes[str(error)] += 1
            continue
        notes.update(converted.notes)
        runs.append(converted)
    return runs
