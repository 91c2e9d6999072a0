"""Record events of a run under its lock, so that a step that must happen only once is decided there."""

from collections.abc import Callable, Sequence

from mosaicd import log
from mosaicd.core.fsm import Action, Event, owed
from mosaicd.core.run import Run
from mosaicd.protocol.errors import NotFound
from mosaicd.store.registry import Registry

logger = log.logger(__name__)


class Recorder:
    """Record events, and ignore a run that has ended."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def record(self, run_id: str, decide: Callable[[Run], Sequence[Event]]) -> None:
        """Record the events that `decide` returns for the newest state of the run."""
        try:
            await self._registry.record_if(run_id, decide)
        except NotFound:
            logger.debug("run %s has ended", run_id)

    async def record_outcome(self, run: Run, action: Action, event_of: Callable[[Run], Event]) -> None:
        """Record the event that `action` leads to, unless the run is no longer owed that action."""

        def decide(now: Run) -> list[Event]:
            return [event_of(now)] if owed(now) is action and now.attempt == run.attempt else []

        await self.record(run.run_id, decide)
