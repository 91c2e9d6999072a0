"""Runs that were set aside while they may have lived: what they held is nobody's until nothing of them lives.

A row that makes no sense is moved aside, but that ends no process.  The daemon does not manage such a run
(it could only guess), so it does the one thing that is always right: it hands out nothing that the record
says was the run's until the launcher finds no process of it and no shim holds one of its attempts.  Its
shim, which nobody accepts any more, leaves by itself when its tree has ended.

What a reader would get wrong: nothing of this is stored.  The record stays in quarantine for whoever repairs
it, so the question is asked anew after every start; a run that was seen to be gone once is gone for good.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from mosaicd import log
from mosaicd.core.slots import Withheld
from mosaicd.log import Catalogue
from mosaicd.protocol import ulid
from mosaicd.protocol.backoff import Backoff
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.registry import Registry

if TYPE_CHECKING:
    from mosaicd.shims.launcher_client import LauncherClient

#: The longest wait between two looks.
MOST_LOOK_S = 5.0
MOST_PIDS = 20


class Turns(Protocol):
    """What the queue offers here."""

    @property
    def withheld(self) -> Mapping[str, Withheld]: ...

    def withhold(self, withheld: Mapping[str, Withheld]) -> None: ...


class Aftercare:
    """Call `begin` before anything is dispatched, then `run`; `first_look_s`: until the second."""

    def __init__(
        self,
        registry: Registry,
        rundirs: RunDirs,
        launcher: "LauncherClient",
        turns: Turns,
        first_look_s: float,
    ) -> None:
        self._registry = registry
        self._rundirs = rundirs
        self._launcher = launcher
        self._turns = turns
        self._backoff = Backoff(first_look_s, max(first_look_s, MOST_LOOK_S))

    def begin(self) -> None:
        """Withhold what every run that was set aside alive may still use."""
        entries = [entry for entry in self._registry.quarantine if entry["is_live"]]
        self._turns.withhold({entry["run_id"]: _withheld(entry) for entry in entries})

    async def run(self) -> None:
        """Look again and again, until nothing of any of them lives."""
        told: set[str] = set()
        while self._turns.withheld:
            left: dict[str, Withheld] = {}
            for run_id, withheld in self._turns.withheld.items():
                try:
                    is_gone, pids = await self._look(run_id)
                except OSError as error:  # no descriptor to be had now, say: not known is not gone
                    log.event(Catalogue.PROCESSES_UNKNOWN, run_id=run_id, why=error)
                    is_gone, pids = False, list(withheld.pids)
                if not is_gone:
                    left[run_id] = replace(withheld, pids=tuple(pids[:MOST_PIDS]))
            self._say(left, told)
            self._turns.withhold(left)
            await asyncio.sleep(self._backoff.next_s())

    async def _look(self, run_id: str) -> tuple[bool, list[int]]:
        """Return whether nothing of the run lives, and the pids that were found."""
        if run_id in self._registry.live:
            return True, []  # it was taken up again, and holds what it holds
        held, pids = False, []
        for name in [run_id] if ulid.is_ulid(run_id) else await asyncio.to_thread(self._nobodys):
            held |= bool(await asyncio.to_thread(held_attempts, self._rundirs.path(name)))
            empty, found = await self._launcher.check_tree(name, (None, None))
            held |= not empty
            pids += found
        return not held, pids

    def _nobodys(self) -> list[str]:
        """Return the directories that a run may have whose id cannot be read: no live run's, and in use."""
        names = [name for name in self._rundirs.names() if name not in self._registry.live]
        return [name for name in names if held_attempts(self._rundirs.path(name))]

    def _say(self, left: Mapping[str, Withheld], told: set[str]) -> None:
        for run_id, withheld in left.items():
            if run_id not in told:
                told.add(run_id)
                log.event(
                    Catalogue.SLOTS_WITHHELD, run_id=run_id, summary=withheld.summary(), **_fields(withheld)
                )
        for run_id, withheld in self._turns.withheld.items():
            if run_id in told and run_id not in left:
                log.event(Catalogue.SLOTS_GIVEN_BACK, run_id=run_id, **_fields(withheld))


def _fields(withheld: Withheld) -> dict[str, Any]:
    return {"slots": list(withheld.slots), "cpus": withheld.cpus, "pids": list(withheld.pids)}


def _withheld(entry: Mapping[str, Any]) -> Withheld:
    return Withheld(entry["run_id"], entry["owner"], entry["cpus"], tuple(entry["slots"]))
