"""Retention at work: measures ended runs, decides by the policy, and removes what it gives up.

The order is crash-safe: the directory says that it is given up, row and events go in one transaction that
leaves a mark, then the directory goes (its spec first, what says that it is given up last), then the mark
says so; `finish` redoes the last two after a crash.  So a directory that no row knows (the registry was lost,
or an older copy put in its place) is never taken for a run that is still wanted.  A reader would get wrong: a
run that a live run names (its own earlier attempt, a checkpoint of it) stays although nobody pinned it.
"""

import asyncio
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mosaicd import crash_points, log
from mosaicd.clock import Clock
from mosaicd.config.settings import Retention as Settings
from mosaicd.core.retention import Ended, Policy, choose
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from mosaicd.protocol.messages import ListRuns
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from mosaicd.rundirs.removal import remove_pruned
from mosaicd.store.history import History
from mosaicd.store.registry import Registry

#: Runs in one transaction: few enough that a request waits for milliseconds, not for all of them.
BATCH_RUNS = 20
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Choice:
    """An ended run that may go: how large it is (bytes on disk), and which rule gives it up."""

    run: Ended
    size_bytes: int
    why: str


class Retention:
    """Looks at ended runs only; everything belongs to the event loop."""

    def __init__(
        self, registry: Registry, history: History, rundirs: RunDirs, settings: Settings, clock: Clock
    ) -> None:
        self._registry = registry
        self._history = history
        self._rundirs = rundirs
        self._clock = clock
        self._interval_s = settings.interval_s
        self.policy = policy_of(settings)
        self._sizes: dict[str, int] = {}
        self._removing = asyncio.Lock()

    async def run(self) -> None:
        """Finish what a crash left, then apply the policy from time to time, until cancelled."""
        while True:
            try:
                await self.finish()
                if not self.policy.is_off:
                    await self.prune(await self.given_up(), "retention")
            except MosaicError as error:  # a full disk, most likely: what was not done is done next time
                log.event(Catalogue.PRUNE_FAILED, why=error)
            await asyncio.sleep(self._interval_s)

    # --- deciding ----------------------------------------------------------------------------------

    async def given_up(self, owner_uid: int | None = None) -> list[Choice]:
        """Return what the policy gives up now, the longest ended first; of one owner, or of all."""
        runs = await self._history.ended(ListRuns())
        sizes: Mapping[str, int] = {}
        if self.policy.needs_sizes:
            sizes = await self.measure([run.run_id for run in runs])
        chosen = choose(runs, self.policy, self._clock.wall(), sizes, await self.in_use())
        taken = [run for run in runs if run.run_id in chosen and owner_uid in (None, run.owner_uid)]
        sizes = await self.measure([run.run_id for run in taken])
        return [Choice(run, sizes[run.run_id], chosen[run.run_id]) for run in taken]

    async def in_use(self) -> frozenset[str]:
        """Return the ids that live runs mention: as origin, on the command line, in their config."""
        live = list(self._registry.live.values())
        said = [" ".join((run.origin or "", run.cwd or "", *run.command)) for run in live]
        said += await asyncio.to_thread(self._specs, [run.run_id for run in live])
        return frozenset(found for text in said for found in _ID.findall(text.upper()))

    async def measure(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Return the bytes that each ended run's directory takes; measured once, as nothing writes there."""
        known = {run_id: self._sizes[run_id] for run_id in run_ids if run_id in self._sizes}
        found = await asyncio.to_thread(self._measure, [run_id for run_id in run_ids if run_id not in known])
        self._sizes.update(found)
        return known | found

    # --- removing ----------------------------------------------------------------------------------

    async def prune(self, choices: Sequence[Choice], who: str) -> list[Choice]:
        """Remove what was chosen and return what was; pinned meanwhile, or still in a shim's hand: stays."""
        gone: list[Choice] = []
        for start in range(0, len(choices), BATCH_RUNS):
            batch = choices[start : start + BATCH_RUNS]
            held = await asyncio.to_thread(self._held, [choice.run.run_id for choice in batch])
            sizes = {c.run.run_id: c.size_bytes for c in batch if c.run.run_id not in held}
            taken = await self._take(sizes, who)
            gone += [choice for choice in batch if choice.run.run_id in taken]
            await self.finish()
        if gone:
            log.event(
                Catalogue.RUNS_PRUNED, count=len(gone), bytes=sum(choice.size_bytes for choice in gone),
                who=who, oldest=gone[0].run.run_id,
            )  # fmt: skip
        return gone

    async def _take(self, sizes: Mapping[str, int], who: str) -> set[str]:
        """Take rows and events away, and return of which; the others are as they were before."""
        await asyncio.to_thread(self._mark, sizes)
        crash_points.reach("prune.marked")
        taken: set[str] = set()
        try:
            taken = set(await self._registry.retention.prune(sizes, who)) if sizes else taken
            crash_points.reach("prune.recorded")
        finally:
            await asyncio.to_thread(self._unmark, sizes.keys() - taken)
        return taken

    async def finish(self) -> None:
        """Remove the directories of runs whose rows are gone; what cannot be removed is tried again later."""
        async with self._removing:
            left = sorted(self._registry.retention.pruned_left)
            for start in range(0, len(left), BATCH_RUNS):
                trouble = await asyncio.to_thread(self._clear, left[start : start + BATCH_RUNS])
                for run_id, why in trouble.items():
                    self._sizes.pop(run_id, None)
                    if why is not None:
                        log.event(Catalogue.PRUNED_DIRECTORY_LEFT, run_id=run_id, why=why)
                crash_points.reach("prune.removed")
                await self._registry.retention.note_removed(
                    [run_id for run_id, why in trouble.items() if why is None]
                )

    # --- in a thread -------------------------------------------------------------------------------

    def _measure(self, run_ids: Sequence[str]) -> dict[str, int]:
        return {run_id: size_of(self._rundirs.path(run_id)) for run_id in run_ids}

    def _clear(self, run_ids: Sequence[str]) -> dict[str, str | None]:
        return {run_id: remove_pruned(self._rundirs.path(run_id)) for run_id in run_ids}

    def _mark(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            with suppress(OSError):  # gone by hand, or a full disk, which is what pruning is for
                self._rundirs.give_up(run_id)

    def _unmark(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            self._rundirs.keep(run_id)

    def _held(self, run_ids: Sequence[str]) -> set[str]:
        return {run_id for run_id in run_ids if self._may_be_held(run_id)}

    def _may_be_held(self, run_id: str) -> bool:
        try:
            return bool(held_attempts(self._rundirs.path(run_id)))
        except OSError as error:  # no descriptor to be had now: it is pruned another time
            log.event(Catalogue.HOLDER_UNKNOWN, run_id=run_id, why=error)
            return True

    def _specs(self, run_ids: Collection[str]) -> list[str]:
        texts = []
        for run_id in run_ids:
            with suppress(OSError):
                texts.append(self._rundirs.spec_text(run_id))
        return texts


def policy_of(settings: Settings) -> Policy:
    """Return the policy that settings mean: 0 is no limit."""
    return Policy(
        age_s=settings.age_days * DAY_S or None,
        runs_per_user=settings.runs_per_user or None,
        bytes_per_user=settings.bytes_per_user or None,
        bytes_total=settings.bytes_total or None,
    )


def size_of(path: Path) -> int:
    """Return the bytes on disk below `path`; links are not followed, what cannot be read is left out."""
    total = 0
    for entry in _below(path):
        with suppress(OSError):  # gone meanwhile: somebody else removes it
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _below(path: Path) -> Iterator["os.DirEntry[str]"]:
    waiting = [str(path)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
