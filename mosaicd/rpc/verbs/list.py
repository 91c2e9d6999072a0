"""run.list: live and ended runs in pages, oldest first.

Input: filters, joined by AND.  Output: {runs, cursor}; on the last page, cursor is null.
Caveats: only an admin sees runs of other users.  A page of large runs has fewer runs than the limit, so only
the cursor shows whether more runs follow.
"""

import json
from collections.abc import Sequence

from mosaicd.core.run import Progress, Run
from mosaicd.protocol import Json
from mosaicd.protocol.framing import REQUEST_LIMIT_BYTES
from mosaicd.protocol.messages import ListRuns
from mosaicd.rpc import validate
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services

PAGE_BYTES = REQUEST_LIMIT_BYTES * 3 // 4
#: An upper bound for a run object without its command and labels.
PLAIN_BYTES = 4096


async def handle(services: Services, caller: Caller, params: ListRuns) -> Json:
    """Return one page."""
    validate.at_least(params, 1, "limit")
    owner = None if caller.is_admin else caller.uid
    limit = min(params.limit or services.settings.limits.page_runs, services.settings.limits.page_runs)
    page, cursor = await services.history.list(params, owner, limit=limit)
    fitting = _fitting(page)
    if fitting < len(page):
        page, cursor = await services.history.list(params, owner, limit=fitting)
    known = services.registry.progress
    runs = [services.runs.view(run, progress=known.get(run.run_id, progress)) for run, progress in page]
    return {"runs": runs, "cursor": cursor}


def _fitting(page: Sequence[tuple[Run, Progress]]) -> int:
    """Return how many runs of the page fit into one reply: at least one."""
    free_bytes = PAGE_BYTES
    for count, (run, _) in enumerate(page):
        free_bytes -= PLAIN_BYTES + _size(run)
        if free_bytes < 0:
            return max(1, count)
    return len(page)


def _size(run: Run) -> int:
    """Return the bytes of the run's command and labels; 0 if they are short."""
    texts = [*run.command, *run.labels, *run.labels.values()]
    return len(json.dumps(texts)) if sum(map(len, texts)) > PLAIN_BYTES // 8 else 0
