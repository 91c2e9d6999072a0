"""The user and process that sent a line, and the connection that the line came on.

A `Caller` is made for each line, not for each connection.  So a handler can register work that begins only
after the reply to this line has been sent (a stream).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mosaicd.rpc.seq_index import SeqIndex
from mosaicd.rpc.streams import Stream, Streams
from mosaicd.shims.shims import Connection as ShimConnection


@dataclass(slots=True)
class Caller:
    """The sender of one line, as the kernel names it.  `connection` is for a shim that registers."""

    uid: int
    gid: int
    pid: int
    name: str
    is_admin: bool
    connection: ShimConnection
    streams: Streams
    seq_index: SeqIndex
    _afterwards: list[Callable[[], None]] = field(default_factory=list)

    def open_stream(self, method: str, cursor: int, feed: Callable[[Stream], Awaitable[None]]) -> Stream:
        """Return a stream that `feed` fills once the reply has been sent; Unavailable: too many are open."""
        stream = self.streams.open(method, cursor)
        self.when_answered(lambda: self.streams.start(stream, feed))
        return stream

    def when_answered(self, act: Callable[[], None]) -> None:
        """Call `act` once the reply is on its way; never, if the caller hung up before."""
        self._afterwards.append(act)

    def answered(self) -> None:
        """Call everything that waits for the reply; only the connection calls this."""
        for act in self._afterwards:
            act()
        self._afterwards.clear()
