"""The daemon's socket: who may connect, how many, and an orderly end.

The listening socket is handed in, by systemd or by the service, and is never unlinked here.
"""

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import NotPermitted, Unavailable
from mosaicd.rpc.connection import Connection
from mosaicd.rpc.fair_queue import Turns
from mosaicd.rpc.router import Router

if TYPE_CHECKING:
    from mosaicd.host.auth import HasOptions, Principal
    from mosaicd.rpc.context import Services

#: Connections that wait in the kernel, and how many of them are taken between two looks at the others: the
#: hang-ups of a flood are then seen before it has filled every place.
BACKLOG = 4096
ACCEPTED_A_ROUND = 32


class Server:
    """Accepts connections; until `open` only shims are served, and daemon.hello and daemon.health."""

    def __init__(self, services: "Services", router: Router | None = None) -> None:
        self.services = services
        self.router = router or Router(services)
        self.turns = Turns()
        self.connections: set[Connection] = set()
        self._by_user: Counter[int] = Counter()
        self._refused: set[int] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept on a Unix stream socket that is bound."""
        loop = asyncio.get_running_loop()
        # create_server and not create_unix_server: that one unlinks the path of systemd's socket on 3.13.
        self._listener = await loop.create_server(
            lambda: Connection(self), sock=listener, backlog=ACCEPTED_A_ROUND
        )
        listener.listen(BACKLOG)

    def open(self) -> None:
        """Answer everybody: reconcile has ended."""
        self.services.ready.set()

    def stop_accepting(self) -> None:
        """Accept nobody any more; who is connected is served on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """Stop accepting, end streams and waits, let requests in flight finish for a while, hang up."""
        grace_s = self.services.settings.timeouts.shutdown_s
        self.stop_accepting()
        self.router.stop()
        connections = list(self.connections)
        await asyncio.gather(*(connection.close(grace_s) for connection in connections))
        await self.router.finish(grace_s)

    # --- the connections' side -----------------------------------------------------------------------

    def admit(self, connection: Connection, link: "HasOptions") -> "Principal":
        """Return who connected and count it in; NotPermitted or Unavailable when it may not stay."""
        try:
            peer = self.services.auth.principal(link)
        except NotPermitted as refusal:
            self._report(refusal.data["uid"], "this daemon does not serve that user")
            raise
        limit = self.services.settings.limits.connections_per_user
        if self._by_user[peer.uid] >= limit and not self._is_shim(peer.pid):
            self._report(peer.uid, f"{limit} connections are open")
            raise Unavailable(f"You have {limit} connections open, and that is the limit", limit=limit)
        self._by_user[peer.uid] += 1
        self.connections.add(connection)
        return peer

    def _is_shim(self, pid: int) -> bool:
        """Whether a run depends on the connection: its owner's other connections do not keep it out."""
        live = self.services.registry.live.values()
        return self.services.shims.knows(pid) or any(run.shim_pid == pid for run in live)

    def forget(self, connection: Connection) -> None:
        """Count a connection out that is gone."""
        self.connections.discard(connection)
        peer = connection.peer
        if peer is not None:
            self._by_user[peer.uid] -= 1
            self._refused.discard(peer.uid)

    def _report(self, uid: int, why: str) -> None:
        if uid not in self._refused:  # once an episode: a flood of connections is no flood of the log
            self._refused.add(uid)
            log.event(Catalogue.PEER_REFUSED, uid=uid, why=why)
