"""Start-up: rows x run directories -> events, before anybody is answered.

Nothing waits for a connection here: a shim that lives holds its attempt's lock and registers by itself.
What a run missed is folded by the same functions that take a shim's word; there is no other restart
logic.  A run whose files make no sense is said aloud and left for its deadlines; it never keeps the
daemon down.
"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.core import dead_shim
from mosaicd.core.fsm import Action, Event, IllegalTransition, owed
from mosaicd.core.run import Run
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.errors import MosaicError, NotFound
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.history import History
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shims.shims import Shims


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
    shims: "Shims",
    clock: Clock,
    timeout_s: float,
) -> Report:
    """Fold what live runs missed, under one deadline for all; return what was found."""
    report = Report()
    try:
        async with asyncio.timeout(timeout_s):
            for run in list(registry.live.values()):
                if run.is_holding:
                    await _take_up(run, registry, rundirs, shims, clock, report)
            await _tidy(registry, history, rundirs, report)
    except TimeoutError:  # the dispatcher looks at every run whose shim it does not know
        log.event(Catalogue.RECONCILE_LATE, timeout_s=timeout_s)
    return report


async def _take_up(
    run: Run, registry: Registry, rundirs: RunDirs, shims: "Shims",
    clock: Clock, report: Report,
) -> None:  # fmt: skip
    files = await asyncio.to_thread(rundirs.examine, run.run_id, run.attempt, run.owner_uid)
    if files.is_held:
        shims.watch_recorded(run.run_id, run.attempt, files.launch)
        report.alive.append(run.run_id)
        return
    if dead_shim.is_launch_owed(run, files):
        report.owed_a_launch.append(run.run_id)
        return

    def decide(now: Run) -> list[Event]:
        return dead_shim.events_of(now, files, clock.boot_id(), clock.wall())

    try:
        after = await registry.record_if(run.run_id, decide)
    except IllegalTransition as error:
        report.nonsense[run.run_id] = str(error)
        log.event(Catalogue.RUN_CONTRADICTED, run_id=run.run_id, why=error)
        return
    except NotFound:
        return  # its shim has registered meanwhile, and told the end
    except MosaicError as error:  # a full disk, say: the dispatcher looks again until it works
        log.event(Catalogue.RUN_NOT_RECORDED, run_id=run.run_id, why=error)
        return
    (report.lost if owed(after) is Action.EMPTY_TREE and after.exit is None else report.ended).append(
        run.run_id
    )


async def _tidy(registry: Registry, history: History, rundirs: RunDirs, report: Report) -> None:
    """Remove what a crash left in run directories: of submits that nobody was told of, of what is over.

    What nobody knows otherwise stays where it is: it may be all that is left of a run.
    """
    set_aside = {row["run_id"] for row in registry.quarantine}  # somebody may want to mend these
    for outline in await asyncio.to_thread(lambda: list(rundirs.outlines())):
        name = outline.name
        if not ulid.is_ulid(name) or name in set_aside or name in registry.retention.pruned_left:
            continue
        is_live = name in registry.live
        is_marked = bool(outline.entries & rundir.MARKS) or not outline.entries
        if not is_marked and (is_live or not outline.has_environment):
            continue
        if is_live or await history.get(name) is not None:
            await asyncio.to_thread(_settle, rundirs, name, is_over=not is_live)
        elif outline.is_unacknowledged or outline.is_remnant:
            await asyncio.to_thread(rundirs.remove, name)
            report.removed_directories.append(name)


def _settle(rundirs: RunDirs, name: str, *, is_over: bool) -> None:
    """There is a row: so the submit was committed, and a prune that a crash cut off was not."""
    rundirs.acknowledge(name)
    rundirs.keep(name)
    if is_over:
        rundirs.forget_environment(name)
