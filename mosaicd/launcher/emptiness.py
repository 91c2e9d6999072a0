"""Is a run's tree empty?  One walk over /proc answers for any number of runs.

This answer, never a shim's, frees a slot.  A process counts when it is in the run's control group, when its
environment names the run, or when it descends from the run's living shim; a zombie does not count, and
neither does the shim.  Environments are dear to read, and nothing of an attempt is older than its shim (what
an earlier attempt had was empty before), so only those of processes that are younger are read.
"""

from collections.abc import Iterable, Sequence

from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.procfs import Process
from mosaicd.protocol.records.packets import CheckTree, TreeChecked
from mosaicd.shim import process_table

_NAMED_PIDS = 50


def answer(orders: Sequence[CheckTree], sweeper: CgroupSweeper) -> list[TreeChecked]:
    """Return the replies to these questions, all from the same survey of /proc."""
    table = process_table.survey()
    carriers: dict[str, list[int]] = {order.run_id: [] for order in orders}
    oldest = min((order.shim_start or 0 for order in orders), default=0)
    for process in table.values():
        if process.is_alive and process.start_ticks >= oldest:
            run_id = process_table.marker_of(process.pid)
            if run_id in carriers:
                carriers[run_id].append(process.pid)
    for run_id, pids in sweeper.living().items():
        if run_id in carriers:
            carriers[run_id].extend(pids)
    return [_reply(order, table, carriers[order.run_id]) for order in orders]


def orphaned(orders: Iterable[CheckTree]) -> list[tuple[str, int]]:
    """Return run id and attempt of those that were asked about and whose shim lives no more."""
    table = process_table.survey()
    return [
        (order.run_id, order.attempt)
        for order in orders
        if order.attempt is not None and _shim(order, table) is None
    ]


def _shim(order: CheckTree, table: process_table.Survey) -> Process | None:
    shim = table.get(order.shim_pid or 0)
    return shim if shim and shim.is_alive and shim.start_ticks == order.shim_start else None


def _reply(order: CheckTree, table: process_table.Survey, carriers: list[int]) -> TreeChecked:
    living = set(carriers)
    shim = _shim(order, table)
    if shim:
        below = process_table.descendants(table, [shim.pid])
        living.update(process.pid for process in below if process.is_alive)
    pids = tuple(sorted(living)[:_NAMED_PIDS])
    return TreeChecked(id=order.id, run_id=order.run_id, empty=not living, pids=pids)
