"""The daemon's socket: which users may connect, how many connections there may be, and an orderly end.

The caller passes the listening socket, which may be systemd's; the server never unlinks its path.
"""

import asyncio
import socket
from collections import Counter

from mosaicd import log
from mosaicd.host.auth import HasOptions, Principal
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError, NotPermitted, Unavailable
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.connection import Connection
from mosaicd.rpc.context import Services
from mosaicd.rpc.envelope import Envelope
from mosaicd.rpc.fair_queue import FairQueue
from mosaicd.rpc.router import Router

#: The most connections that wait in the kernel.
BACKLOG = 4096
#: How many connections asyncio accepts before it checks the other sockets.  So in a flood of connections it
#: sees those that end, before the flood reaches the limit of connections.
ACCEPTED_A_ROUND = 32


class Server:
    """Accept connections; until `open`, serve only shims, daemon.hello and daemon.health.

    It is the `Host` of its connections.
    """

    def __init__(self, services: Services, router: Router | None = None) -> None:
        self.limits = services.settings.limits
        self.router = router or Router(services)
        self.connections: set[Connection] = set()
        self._shutdown_s = services.settings.timeouts.shutdown_s
        self._auth = services.auth
        self._registry = services.registry
        self._shims = services.shims
        self._ready = services.ready
        self._lines = FairQueue()
        self._by_user: Counter[int] = Counter()
        self._refused: set[int] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept on a Unix stream socket that is bound."""
        loop = asyncio.get_running_loop()
        # Not create_unix_server: in Python 3.13 it unlinks the path of systemd's socket.
        self._listener = await loop.create_server(
            lambda: Connection(self), sock=listener, backlog=ACCEPTED_A_ROUND
        )
        listener.listen(BACKLOG)

    def open(self) -> None:
        """Answer every client from now on; call this when reconcile has ended."""
        self._ready.set()

    def stop_accepting(self) -> None:
        """Accept no further connection; open connections are still served."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """Stop accepting, end streams and waits, let requests in flight finish for a while, and close."""
        self.stop_accepting()
        self.router.stop()
        connections = list(self.connections)
        await asyncio.gather(*(connection.close(self._shutdown_s) for connection in connections))
        await self.router.finish(self._shutdown_s)

    # --- called by connections -----------------------------------------------------------------------

    def admit(self, connection: Connection, peer_socket: HasOptions) -> Principal:
        """Count the connection and return its peer; raise NotPermitted or Unavailable to refuse it."""
        try:
            peer = self._auth.principal(peer_socket)
        except NotPermitted as refusal:
            self._log_refusal(refusal.data["uid"], "this daemon does not serve that user")
            raise
        limit = self.limits.connections_per_user
        if self._by_user[peer.uid] >= limit and not self._is_shim(peer.pid):
            self._log_refusal(peer.uid, f"{limit} connections are open")
            raise Unavailable(f"you have {limit} open connections; more are not allowed", limit=limit)
        self._by_user[peer.uid] += 1
        self.connections.add(connection)
        return peer

    def _is_shim(self, pid: int) -> bool:
        """Return whether the process is a shim, which no limit refuses: a run depends on its connection."""
        live = self._registry.live.values()
        return self._shims.has_process(pid) or any(run.shim_pid == pid for run in live)

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection that has ended."""
        self.connections.discard(connection)
        peer = connection.peer
        if peer is not None:
            self._by_user[peer.uid] -= 1
            self._refused.discard(peer.uid)

    def queue(self, connection: Connection) -> None:
        """Have the connection serve its next line soon if it has one."""
        self._lines.add(connection)

    def error_reply(self, error: MosaicError) -> bytes:
        """Return the reply line with `error`, without a request id."""
        return self.router.error_reply(error)

    async def answer(self, message: Envelope, caller: Caller) -> bytes | None:
        """Return the reply line to a request or batch; None for notifications."""
        return await self.router.answer(message, caller)

    def _log_refusal(self, uid: int, why: str) -> None:
        """Log a refused connection once for each user, until a connection of the user ends."""
        if uid not in self._refused:
            self._refused.add(uid)
            log.event(Catalogue.PEER_REFUSED, uid=uid, why=why)
