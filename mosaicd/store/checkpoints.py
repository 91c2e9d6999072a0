"""Checkpoints: the write-ahead log is moved into the database and truncated; a reader in the way is named.

Note: a busy checkpoint is normal.  It is a fault when the log stays, or is large, several times in a row.
"""

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.store.database import truncate_wal
from mosaicd.store.writer import Writer

BUSY_ROUNDS = 3
#: A log of this size (8 MiB) that cannot be truncated is worth a warning even when it moves on.
MANY_PAGES = 2048


class Checkpoints:
    """Counts how often in a row the log could not be truncated."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._busy_rounds, self._checkpointed = 0, -1

    async def take(self) -> tuple[int, int, int]:
        """Truncate the log and return (busy, log, checkpointed) of SQLite; warn where a reader holds it."""
        found: tuple[int, int, int] = await self._writer.send_outside(truncate_wal)
        busy, pages, checkpointed = found
        has_moved = checkpointed != self._checkpointed or pages == checkpointed  # readers come and go
        is_stuck = busy and (not has_moved or pages > MANY_PAGES)
        self._busy_rounds, self._checkpointed = self._busy_rounds + 1 if is_stuck else busy, checkpointed
        if self._busy_rounds >= BUSY_ROUNDS:
            log.event(Catalogue.WAL_BUSY, rounds=self._busy_rounds, log_pages=pages)
        return found
