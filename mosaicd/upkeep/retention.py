"""Retention: measure ended runs, choose runs by the policy, and prune them.

Pruning has four steps in a crash-safe order:
1. mark the directory with `pruned`;
2. delete row and events in one transaction, which adds a row to the table `pruned`;
3. remove the directory, its spec first and the mark last;
4. record in the table `pruned` that the directory is removed.
After a crash `finish` repeats steps 3 and 4.  If the registry is lost or replaced by an older copy, the mark
prevents that a pruned run is recovered and kept.

Note: a run whose id is in the origin, command line or spec of a live run is not pruned, pinned or not.
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
from mosaicd.core.retention import EndedRun, Policy, choose
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from mosaicd.protocol.messages import ListRuns
from mosaicd.rundirs.attempt_files import held_attempts
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.history import History
from mosaicd.store.registry import Registry

#: Runs in one transaction: few, so that a request waits only for milliseconds.
BATCH_RUNS = 20
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Choice:
    """An ended run to prune: its size (bytes on disk), and the rule that it exceeds."""

    run: EndedRun
    size_bytes: int
    why: str


class Retention:
    """Prune ended runs; call all methods on the event loop."""

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
        """Finish interrupted prunings and apply the policy, again and again, until cancelled."""
        while True:
            try:
                await self.finish()
                if not self.policy.is_off:
                    await self.prune(await self.runs_to_prune(), "retention")
            except MosaicError as error:  # for example a full disk: the next round tries again
                log.event(Catalogue.PRUNE_FAILED, why=error)
            await asyncio.sleep(self._interval_s)

    # --- selecting ---------------------------------------------------------------------------------

    async def runs_to_prune(self, owner_uid: int | None = None) -> list[Choice]:
        """Return the runs to prune by the policy, in the order of their ends; of one owner, or of all."""
        runs = await self._history.ended(ListRuns())
        sizes: Mapping[str, int] = {}
        if self.policy.needs_sizes:
            sizes = await self.measure([run.run_id for run in runs])
        chosen = choose(runs, self.policy, self._clock.wall(), sizes, await self.in_use())
        selected = [run for run in runs if run.run_id in chosen and owner_uid in (None, run.owner_uid)]
        sizes = await self.measure([run.run_id for run in selected])
        return [Choice(run, sizes[run.run_id], chosen[run.run_id]) for run in selected]

    async def in_use(self) -> frozenset[str]:
        """Return the run ids in the origin, working directory, command line and spec of live runs."""
        live = list(self._registry.live.values())
        texts = [" ".join((run.origin or "", run.cwd or "", *run.command)) for run in live]
        texts += await asyncio.to_thread(self._specs, [run.run_id for run in live])
        return frozenset(run_id for text in texts for run_id in _ID.findall(text.upper()))

    async def measure(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Return the bytes on disk of each directory; a directory of an ended run is measured once."""
        known = {run_id: self._sizes[run_id] for run_id in run_ids if run_id in self._sizes}
        new = await asyncio.to_thread(self._measure, [run_id for run_id in run_ids if run_id not in known])
        self._sizes.update(new)
        return known | new

    # --- removing ----------------------------------------------------------------------------------

    async def prune(self, choices: Sequence[Choice], who: str) -> list[Choice]:
        """Prune the chosen runs and return those that were pruned; pinned runs and runs with a shim stay."""
        pruned: list[Choice] = []
        for start in range(0, len(choices), BATCH_RUNS):
            batch = choices[start : start + BATCH_RUNS]
            held = await asyncio.to_thread(self._held, [choice.run.run_id for choice in batch])
            sizes = {c.run.run_id: c.size_bytes for c in batch if c.run.run_id not in held}
            deleted = await self._delete_rows(sizes, who)
            pruned += [choice for choice in batch if choice.run.run_id in deleted]
            await self.finish()
        if pruned:
            log.event(
                Catalogue.RUNS_PRUNED, count=len(pruned), bytes=sum(choice.size_bytes for choice in pruned),
                who=who, oldest=pruned[0].run.run_id,
            )  # fmt: skip
        return pruned

    async def _delete_rows(self, sizes: Mapping[str, int], who: str) -> set[str]:
        """Mark the directories, then delete rows and events; return the ids, and unmark the other runs."""
        await asyncio.to_thread(self._mark, sizes)
        crash_points.reach("prune.marked")
        deleted: set[str] = set()
        try:
            deleted = set(await self._registry.retention.prune(sizes, who)) if sizes else deleted
            crash_points.reach("prune.recorded")
        finally:
            await asyncio.to_thread(self._unmark, sizes.keys() - deleted)
        return deleted

    async def finish(self) -> None:
        """Remove the directories of pruned runs; a directory that cannot be removed is tried again later."""
        async with self._removing:
            run_ids = sorted(self._registry.retention.pruned_left)
            for start in range(0, len(run_ids), BATCH_RUNS):
                errors = await asyncio.to_thread(self._remove_dirs, run_ids[start : start + BATCH_RUNS])
                for run_id, why in errors.items():
                    self._sizes.pop(run_id, None)
                    if why is not None:
                        log.event(Catalogue.PRUNED_DIRECTORY_LEFT, run_id=run_id, why=why)
                crash_points.reach("prune.removed")
                await self._registry.retention.note_removed(
                    [run_id for run_id, why in errors.items() if why is None]
                )

    # --- in a thread -------------------------------------------------------------------------------

    def _measure(self, run_ids: Sequence[str]) -> dict[str, int]:
        return {run_id: size_of(self._rundirs.path(run_id)) for run_id in run_ids}

    def _remove_dirs(self, run_ids: Sequence[str]) -> dict[str, str | None]:
        """Remove the directories; return the error of each run, None if its directory is removed."""
        return {run_id: self._rundirs.remove_pruned(run_id) for run_id in run_ids}

    def _mark(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            with suppress(OSError):  # removed by hand, or no mark fits on a full disk: prune all the same
                self._rundirs.mark_pruned(run_id)

    def _unmark(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            self._rundirs.unmark_pruned(run_id)

    def _held(self, run_ids: Sequence[str]) -> set[str]:
        """Return the runs that a shim holds or may hold."""
        return {run_id for run_id in run_ids if self._may_be_held(run_id)}

    def _may_be_held(self, run_id: str) -> bool:
        try:
            return bool(held_attempts(self._rundirs.path(run_id)))
        except OSError as error:  # for example no free descriptor: the next round tries again
            log.event(Catalogue.HOLDER_UNKNOWN, run_id=run_id, why=error)
            return True

    def _specs(self, run_ids: Collection[str]) -> list[str]:
        texts = []
        for run_id in run_ids:
            with suppress(OSError):
                texts.append(self._rundirs.spec_text(run_id))
        return texts


def policy_of(settings: Settings) -> Policy:
    """Return the policy of the settings, in which 0 means no limit."""
    return Policy(
        age_s=settings.age_days * DAY_S or None,
        runs_per_user=settings.runs_per_user or None,
        bytes_per_user=settings.bytes_per_user or None,
        bytes_total=settings.bytes_total or None,
    )


def size_of(path: Path) -> int:
    """Return the bytes on disk below `path`, without following links; unreadable entries are left out."""
    total = 0
    for entry in _below(path):
        with suppress(OSError):  # removed meanwhile
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
