"""Open the registry; recover it if it is missing, damaged or behind the run directories.

A lost registry is handled like a registry that lacks everything: its file is set aside, an empty registry
takes its place, and the opening writes the runs of the run directories into it.  If the daemon is killed at
any point, the next start continues.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.host.auth import user_name
from mosaicd.host.lock import CannotServe
from mosaicd.log import Catalogue
from mosaicd.recovery.rundir_reader import RunDirReader
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store import replacing
from mosaicd.store.database import DamagedRegistry, NewerRegistry
from mosaicd.store.recovery_report import RecoveryReport
from mosaicd.store.registry import Registry

MISSING = "the registry was missing or empty, and there were run directories"


class UnusableRegistry(CannotServe):
    """The registry is of a newer version or of another program; it is unchanged, and a retry fails again."""

    exit_code = 3


async def open_registry(
    path: Path, rundirs: RunDirs, settings: Settings, clock: Clock, on_fatal: Callable[[BaseException], None]
) -> Registry:
    """Open the registry and recover it if necessary; UnusableRegistry says what to do.

    The caller holds the lock of the state directory.
    """
    reader = RunDirReader(rundirs, settings.timeouts, clock, user_name)

    async def try_open() -> Registry:
        return await Registry.open(
            path,
            clock=clock,
            group_commit_s=settings.registry.group_commit_ms / 1000,
            on_fatal=on_fatal,
            find_missing=reader.find_missing,
        )

    await asyncio.to_thread(replacing.finish, path)  # an interrupted replacement is finished first
    try:
        if await asyncio.to_thread(_is_missing, path, reader):
            await asyncio.to_thread(replacing.replace_with_empty, path, MISSING, clock.wall())
        try:
            registry = await try_open()
        except DamagedRegistry as damaged:
            if not await asyncio.to_thread(replacing.is_damaged_registry, path):
                raise
            await asyncio.to_thread(replacing.replace_with_empty, path, damaged.why, clock.wall())
            registry = await try_open()
    except (NewerRegistry, DamagedRegistry) as error:
        raise UnusableRegistry(str(error)) from error
    if registry.recovery.new is not None:
        _log(registry.recovery.new)
    return registry


def health_warnings(registry: Registry) -> list[str]:
    """Return the warnings for daemon.health about recoveries, of this start and of earlier ones."""
    return [log.with_code(_entry(report), report.summary()) for report in registry.recovery.reports]


def _is_missing(path: Path, reader: RunDirReader) -> bool:
    return replacing.is_blank(path) and reader.has_runs()


def _entry(report: RecoveryReport) -> log.Entry:
    return Catalogue.REGISTRY_BEHIND if report.set_aside is None else Catalogue.REGISTRY_REBUILT


def _log(report: RecoveryReport) -> None:
    log.event(
        _entry(report), summary=report.summary(), why=report.why, set_aside=report.set_aside,
        ended=report.ended, live=report.live, waiting=report.waiting,
    )  # fmt: skip
    for run_id, why in report.quarantined.items():
        log.event(Catalogue.RUN_NOT_RECOVERED, run_id=run_id, why=why)
    for name, why in report.not_recovered.items():
        log.event(Catalogue.DIRECTORY_NOT_RECOVERED, directory=name, why=why)
