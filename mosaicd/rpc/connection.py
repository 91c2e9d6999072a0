"""One connection: read lines and write lines, within the limits of the settings.

Note: lines are cut lazily and taken one at a time (see fair_queue), and reading stops while a line waits.
If a peer sends faster than it is served, the excess stays in the kernel's buffer.  Replies leave in the order
of completion; only messages of the worker.* family are handled one after the other.
"""

import asyncio
import itertools
import re
import select
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

from mosaicd.config.settings import Limits
from mosaicd.host.auth import HasOptions, Principal
from mosaicd.protocol.errors import MosaicError, TooLarge
from mosaicd.protocol.framing import LineReader, Oversized, encode, request
from mosaicd.rpc import envelope
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.envelope import Envelope
from mosaicd.rpc.seq_index import SeqIndex
from mosaicd.rpc.streams import Streams

READ_BYTES = 16 << 10
HIGH_WATER_BYTES = 256 << 10
#: From one read with more lines than this, the blank lines are removed before the lines are cut.
MANY_LINES = 64
#: Between two checks of a peer that has shut its sending side; asyncio does not report its full hang-up.
HALF_CLOSED_S = 1.0
_BLANK_LINES = re.compile(rb"\n[ \t\r\n]*\n")


class Host(Protocol):
    """The methods of the server that a connection calls."""

    @property
    def limits(self) -> Limits:
        """Return the limits of one connection."""

    def admit(self, connection: "Connection", peer_socket: HasOptions) -> Principal:
        """Count the connection and return its peer; raise NotPermitted or Unavailable to refuse it."""

    def forget(self, connection: "Connection") -> None:
        """Stop counting a connection that has ended."""

    def queue(self, connection: "Connection") -> None:
        """Call `take_line` of the connection soon if the connection has a line to serve."""

    def error_reply(self, error: MosaicError) -> bytes:
        """Return the reply line to a line that cannot be read, or to a peer that is refused."""

    async def answer(self, message: Envelope, caller: Caller) -> bytes | None:
        """Return the reply line to a request or batch; None for notifications."""


class Connection(asyncio.BufferedProtocol):
    """The server's end of one client or shim."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._limits = host.limits
        self._received = bytearray(READ_BYTES)
        self._reader = LineReader(self._limits.request_bytes)
        self._source: Iterator[bytes] = iter(())
        self._line: bytes | None = None
        self._in_flight = 0
        self._in_order: deque[Envelope] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._ended = asyncio.Event()
        self._on_close: list[Callable[[], None]] = []
        self._is_half_closed = False
        self.is_closed = False
        self.peer: Principal | None = None
        self.streams = Streams(self)
        self.seq_index = SeqIndex()

    # --- called by handlers --------------------------------------------------------------------------

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        """Send a notification without waiting and return whether it was written.

        If the peer has not read for so long that the write buffer is full, the connection is aborted.
        """
        if self.is_closed or self._transport.is_closing():
            return False
        line = encode(request(method, dict(params), None))
        if self._transport.get_write_buffer_size() + len(line) > self._limits.write_buffer_bytes:
            self.abort()
            return False
        self._transport.write(line)
        return True

    async def send(self, data: bytes) -> None:
        """Send complete lines once the write buffer has room.

        Raises ConnectionResetError if the peer hung up.
        """
        await self._can_write.wait()
        if not self._write(data):
            raise ConnectionResetError("the peer hung up")

    def _write(self, data: bytes) -> bool:
        """Send; return False if the peer hung up, also if asyncio has not called `connection_lost` yet."""
        if self.is_closed or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the connection ends; immediately if it has ended."""
        if self.is_closed:
            callback()
        else:
            self._on_close.append(callback)

    # --- called by asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        high = min(HIGH_WATER_BYTES, self._limits.write_buffer_bytes // 4)
        transport.set_write_buffer_limits(high=high, low=high // 4)
        try:
            self.peer = self._host.admit(self, transport.get_extra_info("socket"))
        except MosaicError as refusal:
            self.is_closed = True
            transport.write(self._host.error_reply(refusal))
            transport.close()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(memoryview(self._received)[:nbytes])
        if data.count(b"\n") > MANY_LINES:
            data = _BLANK_LINES.sub(b"\n", data)  # much faster than to serve each blank line
        lines = self._reader.feed(data)
        self._source = lines if self._line is None else itertools.chain(self._source, lines)
        if self._line is None:
            self._line = next(self._source, None)
        self._host.queue(self)

    def eof_received(self) -> bool:
        """Keep the connection until all replies are sent if the peer shut only its sending side."""
        self._is_half_closed = True
        self._watch_half_closed()
        return not self.is_closed

    def _watch_half_closed(self) -> None:
        if self.is_closed:
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            self.abort()
        else:
            self.close_if_done()
            asyncio.get_running_loop().call_later(HALF_CLOSED_S, self._watch_half_closed)

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        """Cancel the streams and requests of the peer; requests that write continue (see router)."""
        if self.is_closed:
            return
        self.is_closed = True
        self._ended.set()
        self._line, self._source = None, iter(())
        self._in_order.clear()
        self._can_write.set()
        self.streams.close()
        for task in self._tasks:
            task.cancel()
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            callback()
        self._host.forget(self)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()
        self._host.queue(self)

    # --- one line at a time -------------------------------------------------------------------------

    def line_bytes(self) -> int | None:
        """Return the length of the next line; None if there is no line, or if it may not be taken yet."""
        is_full = self._in_flight >= self._limits.in_flight or not self._can_write.is_set()
        return None if self._line is None or is_full else len(self._line)

    def take_line(self) -> None:
        """Begin to handle the next line; stop reading from the socket while another line waits."""
        line = self._line
        assert line is not None
        self._line = next(self._source, None)
        if self._line is not None:
            self._transport.pause_reading()
        elif not self._is_half_closed:
            self._transport.resume_reading()
        try:
            if isinstance(line, Oversized):
                limit = self._limits.request_bytes
                raise TooLarge(
                    f"a line can have at most {limit} bytes; this line was skipped", limit_bytes=limit
                )
            message = envelope.read(line, self._limits.batch)
        except MosaicError as fault:
            self._write(self._host.error_reply(fault))
            self.close_if_done()
        else:
            self._start_answer(message)

    def _start_answer(self, message: Envelope) -> None:
        self._in_flight += len(message.items)
        if not message.is_ordered:
            self._start_task(self._answer(message))
        else:
            self._in_order.append(message)
            if len(self._in_order) == 1:
                self._start_task(self._answer_in_order())

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_in_order(self) -> None:
        while self._in_order:
            await self._answer(self._in_order[0])
            if self._in_order:
                self._in_order.popleft()

    async def _answer(self, message: Envelope) -> None:
        """Have the message handled, send the reply, and start the streams that the handler opened."""
        peer = self.peer
        assert peer is not None
        caller = Caller(
            peer.uid, peer.gid, peer.pid, peer.name, peer.is_admin, self, self.streams, self.seq_index
        )
        try:
            reply = await self._host.answer(message, caller)
        finally:
            self._in_flight -= len(message.items)
        if self.is_closed or not self._write(reply or b""):
            return
        caller.start_streams()
        self._host.queue(self)
        self.close_if_done()

    # --- the end -------------------------------------------------------------------------------------

    def close_if_done(self) -> None:
        """Close the connection if its peer has shut its sending side and nothing remains to be sent."""
        if self._is_half_closed and not self._in_flight and self._line is None and not self.streams:
            self._transport.close()

    async def close(self, grace_s: float) -> None:
        """Take no more lines, end the streams, wait up to `grace_s` for replies in flight, and close."""
        deadline = asyncio.get_running_loop().time() + grace_s
        self._line, self._source = None, iter(())
        self.streams.end("draining")
        if not self.is_closed:
            self._transport.pause_reading()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=grace_s)
        await self.streams.finish("draining", deadline - asyncio.get_running_loop().time())  # also new ones
        self._transport.close()
        try:
            async with asyncio.timeout_at(deadline):
                await self._ended.wait()  # until the write buffer is empty
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Close the connection immediately; unsent data is dropped."""
        self._transport.abort()
        self._end()
