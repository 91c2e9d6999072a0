"""The runs for handlers: find a run by a reference, change it by events, return its run object."""

from collections.abc import Callable, Sequence

from mosaicd.core.fsm import Event
from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.protocol import Json, ulid
from mosaicd.protocol.errors import Conflict, NotFound
from mosaicd.rpc.caller import Caller
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.history import History
from mosaicd.store.registry import Registry

#: The most characters of an id, prefix or name in a request; no run has a longer name.
LONGEST_REFERENCE = 512


class Runs:
    """Live runs come from the registry's memory, ended runs from its history."""

    def __init__(
        self, registry: Registry, history: History, dispatcher: Dispatcher, rundirs: RunDirs
    ) -> None:
        self._registry = registry
        self._history = history
        self._dispatcher = dispatcher
        self._rundirs = rundirs

    async def find(self, caller: Caller, reference: str) -> Run:
        """Return the run with this id, unique prefix of an id, or name.

        Raises NotFound for another user's run.
        The caller's own runs come first; only an admin can find a run of another user.
        """
        if len(reference) > LONGEST_REFERENCE:
            raise NotFound("no run has a name as long as this")
        if ulid.is_ulid(reference):
            run = self._registry.live.get(reference.upper())
            if run is not None and (caller.is_admin or run.owner_uid == caller.uid):
                return run
        try:
            return await self._history.find(caller.uid, reference)
        except NotFound:
            if not caller.is_admin:
                raise
        return await self._history.find(None, reference)

    async def newest(self, run_id: str) -> tuple[Run, Progress]:
        """Return the present state of a run and its last values; raise NotFound if it does not exist."""
        live = self._registry.live.get(run_id)
        if live is not None:
            return live, self._registry.progress.get(run_id) or Progress()
        found = await self._history.get(run_id)
        if found is None:
            raise NotFound(f"there is no run {run_id}")
        return found

    async def change(self, run_id: str, decide: Callable[[Run], Sequence[Event]]) -> Json:
        """Record the events that `decide` returns for the live run (none: no change); return the run object.

        Raises Conflict for a run that has ended, NotFound for a run that does not exist.
        """
        try:
            run = await self._registry.record_if(run_id, decide)
        except NotFound:
            found = await self._history.get(run_id)
            if found is None:
                raise
            raise _ended(found[0]) from None
        return self.view(run)

    def view(self, run: Run, *, progress: Progress | None = None, duplicate: bool = False) -> Json:
        """Return the run object of the wire."""
        known = progress or self._registry.progress.get(run.run_id) or Progress()
        return run_object(
            run, known, str(self._rundirs.path(run.run_id)), duplicate=duplicate,
            reason=self._dispatcher.reason(run), pinned=run.run_id in self._registry.retention.pins,
        )  # fmt: skip


def _ended(run: Run) -> Conflict:
    return Conflict(f"run {run.run_id} has ended ({run.outcome})", state=run.state, outcome=run.outcome)
