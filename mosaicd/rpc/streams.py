"""The streams of one connection: watches, followed output and followed telemetry.

A stream starts after the reply that has its number, and writes with back-pressure.  It ends with the
notification `run.end` {subscription, reason, cursor}; the client can continue from that cursor.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Protocol

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError, NotFound, Unavailable
from mosaicd.protocol.framing import encode, request

#: The most open streams of one connection.
STREAMS = 64
_subscriptions = count(1)


class Outlet(Protocol):
    """The sending side of the connection that carries the streams."""

    async def send(self, data: bytes) -> None:
        """Send complete lines with back-pressure; raise ConnectionResetError if the peer hung up."""

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        """Send a notification without waiting."""

    def close_if_done(self) -> None:
        """Close the connection if its peer has shut its sending side and nothing remains to be sent."""


class Stream:
    """One subscription.  The function that feeds it sets `cursor` to the position after each write."""

    def __init__(self, outlet: Outlet, method: str, cursor: int) -> None:
        self.subscription = next(_subscriptions)
        self.method = method
        self.cursor = cursor
        self.reason = "terminated"
        self.task: asyncio.Task[None] | None = None
        self._outlet = outlet

    async def send(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification that names this subscription.

        Raises ConnectionResetError if the peer hung up.
        """
        await self.write(encode(request(method, {"subscription": self.subscription, **params}, None)))

    async def write(self, lines: bytes) -> None:
        """Send complete, encoded lines; raise ConnectionResetError if the peer hung up."""
        await self._outlet.send(lines)


class Streams:
    """All open streams of a connection, by subscription number."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._open: dict[int, Stream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, method: str, cursor: int) -> Stream:
        """Return a new stream, which is started after the reply; raise Unavailable if too many are open."""
        if len(self._open) >= STREAMS:
            raise Unavailable(f"a connection can have at most {STREAMS} streams", limit=STREAMS)
        stream = Stream(self._outlet, method, cursor)
        self._open[stream.subscription] = stream
        return stream

    def start(self, stream: Stream, feed: Callable[[Stream], Awaitable[None]]) -> None:
        """Have `feed` fill an open stream; if the stream has ended meanwhile, send only its end."""
        if stream.subscription not in self._open:
            self._send_end(stream)
            return

        async def feed_stream() -> None:
            await feed(stream)

        stream.task = asyncio.get_running_loop().create_task(feed_stream())
        stream.task.add_done_callback(lambda task: self._ended(stream, task))

    def _ended(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._open.pop(stream.subscription, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ConnectionResetError):
            return
        if error is not None:
            stream.reason = "error"
        self._send_end(stream, **_error_fields(stream, error))

    def _send_end(self, stream: Stream, **error_fields: Any) -> None:
        end = {"subscription": stream.subscription, "reason": stream.reason, "cursor": stream.cursor}
        self._outlet.notify("run.end", {**end, **error_fields})
        self._outlet.close_if_done()

    def unsubscribe(self, subscription: int) -> int:
        """End one stream and return its cursor; raise NotFound if this connection has no such stream."""
        stream = self._open.get(subscription)
        if stream is None:
            raise NotFound(f"this connection has no stream {subscription}")
        self._cancel(stream, "unsubscribed")
        return stream.cursor

    def end(self, reason: str) -> None:
        """End every stream; each `run.end` has the reason."""
        for stream in list(self._open.values()):
            self._cancel(stream, reason)

    async def finish(self, reason: str, grace_s: float) -> None:
        """End every stream and wait until each `run.end` is sent, at most `grace_s`."""
        self.end(reason)
        tasks = [stream.task for stream in self._open.values() if stream.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    def close(self) -> None:
        """End every stream of a connection that has ended; `run.end` can no longer be sent."""
        self.end("gone")

    def _cancel(self, stream: Stream, reason: str) -> None:
        stream.reason = reason
        if stream.task is None:
            self._open.pop(stream.subscription, None)
        else:
            stream.task.cancel()


def _error_fields(stream: Stream, error: BaseException | None) -> Json:
    """Return the fields of `run.end` for the error of a stream; an internal error is logged here."""
    if error is None:
        return {}
    if isinstance(error, MosaicError):
        return {"name": error.name, "message": error.message}
    reference = secrets.token_hex(4)
    log.event(Catalogue.REQUEST_FAILED, error=error, method=stream.method, reference=reference)
    return {"reference": reference}
