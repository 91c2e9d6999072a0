"""Start-up: rows x run directories -> events, before anybody is answered.

Nothing waits for a connection here: a shim that lives holds its attempt's lock and registers by itself.
What a run missed is folded by the same functions that take a shim's word; there is no other restart
logic.  A run whose files make no sense is said aloud and left for its deadlines; it never keeps the
daemon down.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mosaicd.core.fsm import Action, Event, IllegalTransition, owed
from mosaicd.core.run import Run
from mosaicd.protocol import ulid
from mosaicd.protocol.errors import MosaicError, NotFound
from mosaicd.protocol.states import State
from mosaicd.rundirs import Found, RunDirs
from mosaicd.store.history import History
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shim_link import ShimLink

log = logging.getLogger(__name__)


@dataclass
class Report:
    """What start-up found, by run id."""

    alive: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    owed_a_launch: list[str] = field(default_factory=list)
    nonsense: dict[str, str] = field(default_factory=dict)
    removed_directories: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many runs were found in which condition."""
        kinds = {"alive": self.alive, "ended": self.ended, "lost": self.lost, "to_launch": self.owed_a_launch}
        counted = {name: len(found) for name, found in kinds.items()}
        return {"runs": sum(counted.values()) + len(self.nonsense), **counted}


async def reconcile(
    registry: Registry,
    history: History,
    rundirs: RunDirs,
    shims: "ShimLink",
    events_of: Callable[[Run, Found], list[Event]],
    timeout_s: float,
) -> Report:
    """Fold what live runs missed, under one deadline for all; return what was found."""
    report = Report()
    try:
        async with asyncio.timeout(timeout_s):
            for run in list(registry.live.values()):
                if run.is_holding:
                    await _take_up(run, registry, rundirs, shims, events_of, report)
            await _remove_unacknowledged(registry, history, rundirs, report)
            await _forget_environments(registry, rundirs)
    except TimeoutError:  # the dispatcher looks at every run whose shim it does not know
        log.error("start-up took longer than %g s to look at the run directories; going on", timeout_s)
    return report


async def _take_up(
    run: Run, registry: Registry, rundirs: RunDirs, shims: "ShimLink",
    events_of: Callable[[Run, Found], list[Event]], report: Report,
) -> None:  # fmt: skip
    found = await asyncio.to_thread(rundirs.examine, run.run_id, run.attempt, run.owner_uid)
    if found.is_held:
        shims.watch_found(run.run_id, run.attempt, found.launch)
        report.alive.append(run.run_id)
        return
    if found.launch is None and found.exit is None and run.state is State.HSHK:
        report.owed_a_launch.append(run.run_id)
        return
    try:
        after = await registry.record_if(run.run_id, lambda now: events_of(now, found))
    except IllegalTransition as error:
        report.nonsense[run.run_id] = str(error)
        log.error("run %s: its files and its row contradict each other: %s", run.run_id, error)
        return
    except NotFound:
        return  # its shim has registered meanwhile, and told the end
    except MosaicError as error:  # a full disk, say: the dispatcher looks again until it works
        log.warning("run %s: what it missed cannot be recorded yet: %s", run.run_id, error)
        return
    (report.lost if owed(after) is Action.EMPTY_TREE and after.exit is None else report.ended).append(
        run.run_id
    )


async def _remove_unacknowledged(
    registry: Registry, history: History, rundirs: RunDirs, report: Report
) -> None:
    """Remove directories of submits that crashed before their COMMIT: nobody was told of these runs."""
    set_aside = {row["run_id"] for row in registry.quarantine}  # somebody may want to mend these
    for name in await asyncio.to_thread(rundirs.unacknowledged):
        if not ulid.is_ulid(name) or name in registry.live or name in set_aside:
            continue
        if await history.get(name) is None:
            await asyncio.to_thread(rundirs.remove, name)
            report.removed_directories.append(name)


async def _forget_environments(registry: Registry, rundirs: RunDirs) -> None:
    """Remove what a crash between the end of a run and the removal of its environment left."""
    kept = {*registry.live, *(row["run_id"] for row in registry.quarantine)}
    for name in await asyncio.to_thread(rundirs.environments):
        if ulid.is_ulid(name) and name not in kept:
            await asyncio.to_thread(rundirs.forget_environment, name)
