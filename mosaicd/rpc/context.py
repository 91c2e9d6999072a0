"""What a handler is given: the daemon's services, and who is asking.

A `Caller` is made for each line that arrives, not for each connection: what a handler wants to do after
its reply has left (start a stream) hangs on the line.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.core.run import Run
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.host.auth import Auth
from mosaicd.host.reexec import Succession
from mosaicd.protocol import ulid
from mosaicd.protocol.errors import NotFound
from mosaicd.rpc.files import Files
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.shim_link import ShimLink
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from mosaicd.upkeep.discovery import Discovery
from mosaicd.upkeep.retention import Retention

if TYPE_CHECKING:
    from mosaicd.rpc.connection import Connection


#: Characters of an id, prefix or name that is looked up; no name is as long.
LONGEST_REFERENCE = 512


@dataclass
class Services:
    """Everything a handler may use.  `ready` is set when reconcile has ended; the rest is for health."""

    settings: Settings
    clock: Clock
    registry: Registry
    history: History
    dispatcher: Dispatcher
    broadcaster: Broadcaster
    shims: ShimLink
    auth: Auth
    discovery: Discovery
    rundirs: RunDirs
    retention: Retention
    started_mono: float
    quarantine: dict[str, str] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    warnings: list[str] = field(default_factory=list)
    wal: dict[str, Any] | None = None
    succession: Succession | None = None
    #: Live runs of a rebuilt registry whose shims have not said yet whether they are paused.
    recollected: set[str] = field(default_factory=set)
    files: Files = field(default_factory=Files)

    async def find(self, caller: "Caller", reference: str) -> Run:
        """Return the run that an id, a unique prefix or a name means; NotFound for another user's.

        The caller's own runs come first; only admins may mean somebody else's.
        """
        if len(reference) > LONGEST_REFERENCE:
            raise NotFound("There is no run with a name as long as that")
        if ulid.is_ulid(reference):
            run = self.registry.live.get(reference.upper())
            if run is not None and (caller.is_admin or run.owner_uid == caller.uid):
                return run
        try:
            return await self.history.find(caller.uid, reference)
        except NotFound:
            if not caller.is_admin:
                raise
        return await self.history.find(None, reference)


@dataclass(slots=True)
class Caller:
    """Who sent a line, by the kernel's word, and the connection it came on."""

    uid: int
    gid: int
    pid: int
    name: str
    is_admin: bool
    connection: "Connection"
    _afterwards: list[Callable[[], None]] = field(default_factory=list)

    def when_answered(self, act: Callable[[], None]) -> None:
        """Call `act` once the reply is on its way; never, when the caller hung up first."""
        self._afterwards.append(act)

    def answered(self) -> None:
        """Carry out what waited for the reply; for the connection only."""
        for act in self._afterwards:
            act()
        self._afterwards.clear()
