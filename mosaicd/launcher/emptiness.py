"""The check whether process trees are empty: one survey of /proc for any number of runs.

Only this check frees a slot; a shim's report does not.  A process belongs to a run if it is in the run's
control group, has the run's marker in its environment, or descends from the run's living shim.  Zombies and
the shim do not count.  If the marker is unknown, because an exec does not end, the process counts for every
run: no slot is freed too early.

Reading environments is slow.  No process of an attempt is older than its shim, because the tree of the
earlier attempt was empty, so only environments of younger processes are read.
"""

from collections.abc import Iterable, Sequence

from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.procfs import Process
from mosaicd.protocol.records.packets import CheckTree, TreeChecked
from mosaicd.shim import process_table

_MOST_PIDS = 50


def answer(orders: Sequence[CheckTree], sweeper: CgroupSweeper) -> list[TreeChecked]:
    """Return the replies to these checks, all from one survey of /proc."""
    table = process_table.survey()
    member_pids: dict[str, list[int]] = {order.run_id: [] for order in orders}
    oldest_shim = min((order.shim_start or 0 for order in orders), default=0)
    for process in table.values():
        if process.is_alive and process.start_ticks >= oldest_shim:
            _add(process.pid, member_pids)
    for run_id, pids in sweeper.living().items():
        if run_id in member_pids:
            member_pids[run_id].extend(pids)
    return [_reply(order, table, member_pids[order.run_id]) for order in orders]


def _add(pid: int, member_pids: dict[str, list[int]]) -> None:
    """Add a process to the run whose marker it has; to every run if its marker is unknown."""
    try:
        run_id = process_table.marker_of(pid)
    except process_table.InExec:
        for pids in member_pids.values():
            pids.append(pid)
        return
    if run_id in member_pids:
        member_pids[run_id].append(pid)


def attempts_without_shim(orders: Iterable[CheckTree]) -> list[tuple[str, int]]:
    """Return run id and attempt of the checks whose shim has ended."""
    table = process_table.survey()
    return [
        (order.run_id, order.attempt)
        for order in orders
        if order.attempt is not None and _shim(order, table) is None
    ]


def _shim(order: CheckTree, table: process_table.Survey) -> Process | None:
    shim = table.get(order.shim_pid or 0)
    return shim if shim and shim.is_alive and shim.start_ticks == order.shim_start else None


def _reply(order: CheckTree, table: process_table.Survey, member_pids: list[int]) -> TreeChecked:
    living = set(member_pids)
    shim = _shim(order, table)
    if shim:
        below = process_table.descendants(table, [shim.pid])
        living.update(process.pid for process in below if process.is_alive)
    pids = tuple(sorted(living)[:_MOST_PIDS])
    return TreeChecked(id=order.id, run_id=order.run_id, empty=not living, pids=pids)
