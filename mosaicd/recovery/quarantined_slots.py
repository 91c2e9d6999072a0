"""The slots of quarantined runs: they stay reserved until no process of such a run is alive.

A row that contradicts itself is quarantined, but that ends no process.  The daemon does not manage such a
run, because it could only guess.  It reserves every slot that the record names, until the launcher finds no
process of the run and no shim holds one of its attempts.  The shim of the run is refused when it registers,
and leaves when its process tree has ended.

Note: the reservations are not stored.  The record stays in quarantine for an operator who may repair it, so
each start checks again.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from mosaicd import log
from mosaicd.core.slots import Withheld
from mosaicd.log import Catalogue
from mosaicd.protocol import Json, ulid
from mosaicd.protocol.backoff import Backoff
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.store.registry import Registry

#: The longest time between two checks.
MAX_INTERVAL_S = 5.0
MOST_PIDS = 20


class Reservations(Protocol):
    """The reserved slots of quarantined runs, by run id; the scheduler has them and gives them to no run."""

    @property
    def withheld(self) -> Mapping[str, Withheld]: ...

    def withhold(self, withheld: Mapping[str, Withheld]) -> None: ...


class QuarantinedSlots:
    """Reserve the slots of quarantined runs: call `reserve` before any run is dispatched, then `run`.

    `interval_s` is the first interval between two checks.
    """

    def __init__(
        self,
        registry: Registry,
        rundirs: RunDirs,
        launcher: LauncherClient,
        reservations: Reservations,
        interval_s: float,
    ) -> None:
        self._registry = registry
        self._rundirs = rundirs
        self._launcher = launcher
        self._reservations = reservations
        self._backoff = Backoff(interval_s, max(interval_s, MAX_INTERVAL_S))

    def reserve(self) -> None:
        """Reserve the slots of every run that may have been live when it was quarantined."""
        entries = [entry for entry in self._registry.quarantine if entry["is_live"]]
        self._reservations.withhold({entry["run_id"]: _withheld(entry) for entry in entries})

    async def run(self) -> None:
        """Check the quarantined runs repeatedly and free their slots, until no process of them is alive."""
        logged: set[str] = set()
        while self._reservations.withheld:
            remaining: dict[str, Withheld] = {}
            for run_id, withheld in self._reservations.withheld.items():
                try:
                    has_ended, pids = await self._check(run_id)
                except OSError as error:  # no free descriptor, for example: the run may be alive
                    log.event(Catalogue.PROCESSES_UNKNOWN, run_id=run_id, why=error)
                    has_ended, pids = False, list(withheld.pids)
                if not has_ended:
                    remaining[run_id] = replace(withheld, pids=tuple(pids[:MOST_PIDS]))
            self._log(remaining, logged)
            self._reservations.withhold(remaining)
            await asyncio.sleep(self._backoff.next_s())

    async def _check(self, run_id: str) -> tuple[bool, list[int]]:
        """Return whether no process of the run is alive, and the pids of the living processes."""
        if run_id in self._registry.live:
            return True, []  # the run was recovered, and its row holds its slots
        is_held, pids = False, []
        for name in [run_id] if ulid.is_ulid(run_id) else await asyncio.to_thread(self._held_without_row):
            is_held |= bool(await asyncio.to_thread(held_attempts, self._rundirs.path(name)))
            empty, found = await self._launcher.check_tree(name, (None, None))
            is_held |= not empty
            pids += found
        return not is_held, pids

    def _held_without_row(self) -> list[str]:
        """Return the run directories with a living shim and no live row.

        One of them may belong to a quarantined run whose id cannot be read.
        """
        names = [name for name in self._rundirs.names() if name not in self._registry.live]
        return [name for name in names if held_attempts(self._rundirs.path(name))]

    def _log(self, remaining: Mapping[str, Withheld], logged: set[str]) -> None:
        """Log each reservation once, and its end."""
        for run_id, withheld in remaining.items():
            if run_id not in logged:
                logged.add(run_id)
                log.event(
                    Catalogue.SLOTS_WITHHELD, run_id=run_id, summary=withheld.summary(), **_fields(withheld)
                )
        for run_id, withheld in self._reservations.withheld.items():
            if run_id in logged and run_id not in remaining:
                log.event(Catalogue.SLOTS_GIVEN_BACK, run_id=run_id, **_fields(withheld))


def _fields(withheld: Withheld) -> Json:
    return {"slots": list(withheld.slots), "cpus": withheld.cpus, "pids": list(withheld.pids)}


def _withheld(entry: Mapping[str, Any]) -> Withheld:
    return Withheld(entry["run_id"], entry["owner"], entry["cpus"], tuple(entry["slots"]))
