"""Checkpoint the write-ahead log of the registry from time to time; keep the last result for health."""

import asyncio

from mosaicd import log
from mosaicd.clock import Clock
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Unavailable
from mosaicd.store.registry import Registry


class WalCheckpoints:
    """`last` is the result of the newest checkpoint: SQLite's three numbers and the wall clock."""

    def __init__(self, registry: Registry, clock: Clock, interval_s: float) -> None:
        self._registry = registry
        self._clock = clock
        self._interval_s = interval_s
        self.last: Json | None = None

    async def run(self) -> None:
        """Checkpoint every `interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.take()
            except Unavailable as error:  # the disk is in trouble: the log grows until a checkpoint succeeds
                log.event(Catalogue.CHECKPOINT_FAILED, why=error)

    async def take(self) -> None:
        """Checkpoint the log now; raise Unavailable if the registry cannot."""
        busy, pages, checkpointed = await self._registry.checkpoint()
        self.last = {"at": self._clock.wall(), "busy": busy, "log": pages, "checkpointed": checkpointed}
        log.event(Catalogue.WAL_CHECKPOINTED, busy=busy, log_pages=pages, checkpointed=checkpointed)
