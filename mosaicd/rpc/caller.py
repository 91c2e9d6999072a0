"""The user and process that sent a line, and the connection of the line.

A `Caller` is made for each line, not for each connection.  So a stream that a handler opens starts after
the reply to this line.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mosaicd.rpc.seq_index import SeqIndex
from mosaicd.rpc.streams import Stream, Streams
from mosaicd.shims.shims import Connection as ShimConnection


@dataclass(slots=True)
class Caller:
    """The sender of one line, identified by the kernel.  Only worker.register uses `connection`."""

    uid: int
    gid: int
    pid: int
    name: str
    is_admin: bool
    connection: ShimConnection
    streams: Streams
    seq_index: SeqIndex
    _starts: list[Callable[[], None]] = field(default_factory=list)

    def open_stream(self, method: str, cursor: int, feed: Callable[[Stream], Awaitable[None]]) -> Stream:
        """Return a stream that `feed` fills after the reply; raise Unavailable if too many are open."""
        stream = self.streams.open(method, cursor)
        self._starts.append(lambda: self.streams.start(stream, feed))
        return stream

    def start_streams(self) -> None:
        """Start the streams that were opened; the connection calls this after it has written the reply."""
        for start in self._starts:
            start()
        self._starts.clear()
