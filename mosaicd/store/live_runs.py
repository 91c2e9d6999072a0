"""The live runs in memory: the newest row, the last values, the submit order and the lock of each run.

They change after a COMMIT and never before it, so a reader sees only events that are on the disk.  The last
values (progress) change without an event; those that are not yet on the disk are `unwritten`.

Note: a run that has ended leaves `runs` with its last event, but its last values and its submit order stay
until `forget`: the subscribers still read them.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mosaicd.core.fsm import Kind
from mosaicd.core.run import Progress, Run
from mosaicd.store.event_writes import Steps

#: Events that set last values.
_RECOUNTED = (Kind.DISPATCHED, Kind.EXITED)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A live run as its row holds it; `submit_order` is the number of the row."""

    run: Run
    progress: Progress
    submit_order: int


class LiveRuns:
    """The live runs, by run id; only the registry changes them."""

    def __init__(self, stored: Iterable[StoredRun]) -> None:
        self.runs: dict[str, Run] = {}
        self.progress: dict[str, Progress] = {}
        self.submit_order: dict[str, int] = {}
        self.locks: dict[str, asyncio.Lock] = {}
        self._unwritten: set[str] = set()
        for run in stored:
            self.enter(run)

    def enter(self, stored: StoredRun) -> None:
        """Add a run whose row is on the disk."""
        run_id = stored.run.run_id
        self.runs[run_id] = stored.run
        self.progress[run_id] = stored.progress
        self.submit_order[run_id] = stored.submit_order
        self.locks[run_id] = asyncio.Lock()

    def advance(self, run_id: str, progress: Progress) -> None:
        """Set the last values of a run and mark them unwritten."""
        self.progress[run_id] = progress
        self._unwritten.add(run_id)

    def progress_after(self, steps: Steps) -> Progress | None:
        """Return the last values to store with these events, or None if the row has them already.

        A new attempt counts from zero; an exit record has the final counts.
        """
        run_id = steps[-1][0].run_id
        known = progress = self.progress[run_id]
        for _, event in steps:
            if event.kind is Kind.DISPATCHED:
                progress = replace(
                    progress, telemetry_seq=0, stdout_bytes=0, stderr_bytes=0, steps_per_s=None,
                    resumed_from=None,
                )  # fmt: skip
            elif event.kind is Kind.EXITED:
                progress = progress.after_exit(event.data)
        return progress if progress is not known or run_id in self._unwritten else None

    def mark_written(self, run_id: str) -> None:
        """Mark the last values of a run as written, because they were sent with its events."""
        self._unwritten.discard(run_id)

    def committed(self, steps: Steps, progress: Progress | None) -> None:
        """Set the run after events that are on the disk, with the last values that were stored with them."""
        after = steps[-1][0]
        self.runs[after.run_id] = after
        if progress is not None and any(event.kind in _RECOUNTED for _, event in steps):
            self.progress[after.run_id] = progress
        if after.is_final:
            del self.runs[after.run_id], self.locks[after.run_id]

    def forget(self, run_id: str) -> None:
        """Drop the last values of a run that has ended."""
        self.progress.pop(run_id, None)
        self.submit_order.pop(run_id, None)
        self._unwritten.discard(run_id)

    def take_unwritten(self) -> Mapping[str, Progress]:
        """Return all unwritten last values and mark them as written."""
        taken, self._unwritten = self._unwritten, set()
        return {run_id: self.progress[run_id] for run_id in taken}

    def mark_unwritten(self, run_ids: Iterable[str]) -> None:
        """Mark the last values of these runs as unwritten, because their write failed."""
        self._unwritten.update(run_id for run_id in run_ids if run_id in self.runs)
