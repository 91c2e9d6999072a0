"""Reconcile: at the start, rows and run directories become events, before the daemon answers about runs.

Nothing waits for a connection here: a living shim holds the lock of its attempt and registers by itself.
The events that a run missed come from the same functions as the facts of a shim; there is no other logic for
a restart.  A run whose files contradict its row is logged and left to its deadlines; the daemon starts all
the same.
"""

import asyncio
from dataclasses import dataclass, field

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.core import dead_shim
from mosaicd.core.fsm import Action, Event, IllegalTransition, owed
from mosaicd.core.run import Run
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.errors import MosaicError, NotFound
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.shims import Shims
from mosaicd.store.history import History
from mosaicd.store.registry import Registry


@dataclass
class Report:
    """The results of reconcile: run ids, and in `contradicted` the reason for each run id."""

    alive: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    owed_a_launch: list[str] = field(default_factory=list)
    contradicted: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return how many runs were found in each condition."""
        kinds = {"alive": self.alive, "ended": self.ended, "lost": self.lost, "to_launch": self.owed_a_launch}
        counted = {name: len(found) for name, found in kinds.items()}
        return {"runs": sum(counted.values()) + len(self.contradicted), **counted}


async def reconcile(
    registry: Registry,
    history: History,
    rundirs: RunDirs,
    shims: Shims,
    clock: Clock,
    timeout_s: float,
) -> Report:
    """Record what live runs missed, under one deadline for all; return what was found."""
    report = Report()
    try:
        async with asyncio.timeout(timeout_s):
            for run in list(registry.live.values()):
                if run.is_holding:
                    await _reconcile_run(run, registry, rundirs, shims, clock, report)
            await _clean_run_dirs(registry, history, rundirs)
    except TimeoutError:  # the dispatcher examines every run without a known shim
        log.event(Catalogue.RECONCILE_LATE, timeout_s=timeout_s)
    return report


async def _reconcile_run(
    run: Run, registry: Registry, rundirs: RunDirs, shims: Shims,
    clock: Clock, report: Report,
) -> None:  # fmt: skip
    """Read the files of a run that holds slots, record the events that follow, and add it to the report."""
    files = await asyncio.to_thread(rundirs.read_attempt, run.run_id, run.attempt, run.owner_uid)
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
        report.contradicted[run.run_id] = str(error)
        log.event(Catalogue.RUN_CONTRADICTED, run_id=run.run_id, why=error)
        return
    except NotFound:
        return  # its shim has registered meanwhile and reported the end
    except MosaicError as error:  # a full disk, for example: the dispatcher tries again until it works
        log.event(Catalogue.RUN_NOT_RECORDED, run_id=run.run_id, why=error)
        return
    (report.lost if owed(after) is Action.EMPTY_TREE and after.exit is None else report.ended).append(
        run.run_id
    )


async def _clean_run_dirs(registry: Registry, history: History, rundirs: RunDirs) -> None:
    """Remove the remains of a crash: directories of submits without a reply, secrets of ended runs.

    Any other directory without a row stays, because it may be the only record of a run.
    """
    quarantined = {row["run_id"] for row in registry.quarantine}  # an operator may repair these rows
    for outline in await asyncio.to_thread(lambda: list(rundirs.outlines())):
        name = outline.name
        if not ulid.is_ulid(name) or name in quarantined or name in registry.retention.pruned_left:
            continue
        is_live = name in registry.live
        is_marked = bool(outline.entries & rundir.MARKS) or not outline.entries
        if not is_marked and (is_live or not outline.has_environment):
            continue
        if is_live or await history.get(name) is not None:
            await asyncio.to_thread(_remove_marks, rundirs, name, is_ended=not is_live)
        elif outline.is_unacknowledged or outline.is_remnant:
            await asyncio.to_thread(rundirs.remove, name)
    await asyncio.to_thread(rundirs.environments.sweep)


def _remove_marks(rundirs: RunDirs, name: str, *, is_ended: bool) -> None:
    """Remove the marks from the directory of a run with a row, and the environment of an ended run."""
    rundirs.acknowledge(name)
    rundirs.unmark_pruned(name)
    if is_ended:
        rundirs.forget_environment(name)
