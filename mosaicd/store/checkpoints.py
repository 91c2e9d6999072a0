"""Checkpoints: move the write-ahead log into the database, truncate it, and warn if a reader prevents that.

Note: one busy checkpoint is normal.  Several in a row with a log that stays, or is large, are a fault.
"""

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.store.database import truncate_wal
from mosaicd.store.writer import Writer

BUSY_ROUNDS = 3
#: A log of this size (8 MiB) that cannot be truncated causes a warning even if its contents change.
MANY_PAGES = 2048


class Checkpoints:
    """Checkpoint the registry, and count how often in a row the log could not be truncated."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._busy_rounds, self._checkpointed = 0, -1

    async def take(self) -> tuple[int, int, int]:
        """Truncate the log and return SQLite's (busy, log, checkpointed); warn if a reader prevents it."""
        found: tuple[int, int, int] = await self._writer.send_outside(truncate_wal)
        busy, pages, checkpointed = found
        has_moved = checkpointed != self._checkpointed or pages == checkpointed  # short readers may overlap
        is_stuck = busy and (not has_moved or pages > MANY_PAGES)
        self._busy_rounds, self._checkpointed = self._busy_rounds + 1 if is_stuck else busy, checkpointed
        if self._busy_rounds >= BUSY_ROUNDS:
            log.event(Catalogue.WAL_BUSY, rounds=self._busy_rounds, log_pages=pages)
        return found
