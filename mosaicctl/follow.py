"""Streams of ledger events and of output that continue after a restart of the daemon.

Each stream has a cursor: the seq of the last event, or a byte offset in the output of one attempt.
Note: the reply to a subscription and its first notifications may overlap, and a new connection may repeat
them.  A stream drops data before its cursor, and fetches missing data.
"""

import time
from base64 import b64decode
from collections.abc import Callable

from mosaicctl.client import Client, Disconnected
from mosaicctl.reconnecting import reconnect
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict, Draining, InternalError, Unavailable


def chunk_bytes(chunk: Json) -> bytes:
    """Return the bytes of a chunk of output, which is sent as text or as base64."""
    data = str(chunk.get("data") or "")
    return b64decode(data) if chunk.get("encoding") == "base64" else data.encode("utf-8", "surrogateescape")


def check_end(end: Json) -> None:
    """Return if the stream has ended completely.

    Raise Disconnected if the daemon is stopping, and InternalError if the stream failed.
    """
    reason = end.get("reason")
    if reason == "error":
        reference = end.get("reference")
        raise InternalError(f"the daemon has an internal error; its log has it as reference {reference}")
    if reason not in ("terminated", "unsubscribed"):
        raise Disconnected(f"the daemon ended the stream: {reason}")


class Stream:
    """One subscription: `is_open` while the daemon sends it, `is_done` after its complete end."""

    def __init__(self) -> None:
        self.subscription: object = None
        self.is_open = False
        self.is_done = False

    def open(self, client: Client) -> None:
        """Subscribe from the cursor on."""
        raise NotImplementedError

    def handle(self, client: Client, method: str, params: Json) -> None:
        """Process one notification of this subscription."""
        raise NotImplementedError


class EventStream(Stream):
    """Ledger events, of one run or of all.

    `on_runs` gets the snapshot of the runs if the stream is opened without a cursor, else an empty list.
    """

    def __init__(
        self, run_id: str | None = None, since: int | None = None, progress: bool = False,
        since_at: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.run_id = run_id
        self._since_at = since_at
        self.cursor = since
        self.epoch: str | None = None
        self.progress = progress
        self.on_runs: Callable[[list[Json]], None] = lambda runs: None
        self.on_event: Callable[[Json], None] = lambda event: None
        self.on_progress: Callable[[Json], None] = lambda progress: None
        self.on_note: Callable[[str], None] = lambda text: None

    def open(self, client: Client) -> None:
        params: Json = {"progress": self.progress}
        if self.run_id is not None:
            params["run_id"] = self.run_id
        if self.cursor is not None:
            params["since"] = self.cursor
            if self.epoch is not None:
                params["epoch"] = self.epoch
        elif self._since_at is not None:
            params["since_at"] = self._since_at
        try:
            reply = client.call("run.watch", params)
        except Conflict:
            if self.epoch is None:
                raise
            self.on_note("the registry was restored; the cursor is not valid any more; continuing from now")
            self.cursor = self.epoch = None
            self.open(client)
            return
        self.subscription, self.epoch = reply.get("subscription"), reply.get("epoch")
        if self.cursor is None:
            self.cursor = reply.get("cursor") or 0
        self.is_open = True
        self.on_runs(reply.get("runs") or [])

    def handle(self, client: Client, method: str, params: Json) -> None:
        if method == "run.event":
            if self.cursor is None or params["seq"] > self.cursor:
                self.on_event(params)
                self.cursor = params["seq"]
        elif method == "run.progress":
            self.on_progress(params)
        elif method == "run.gap":
            # This client was too slow and missed events: subscribe again from the cursor.
            self.is_open = False
            client.call("run.unwatch", {"subscription": self.subscription})
        elif method == "run.end":
            check_end(params)
            self.is_done = True


class LogStream(Stream):
    """The output of one attempt, or of the newest and all later attempts, passed to `write` byte for byte."""

    def __init__(
        self, run_id: str, stream: str, write: Callable[[bytes], object], attempt: int | None = None,
        tail_lines: int | None = None, since: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.run_id, self.stream = run_id, stream
        self.on_gap: Callable[[int, int], None] = lambda first, end: None
        self.cursor = 0
        self._requested_attempt = attempt
        self._attempt = attempt or 0  # `cursor` is an offset in its output; 0: not known yet
        self._write = write
        start: Json = {"tail_lines": tail_lines, "since": since}
        self._start_params = {name: value for name, value in start.items() if value is not None}

    def open(self, client: Client) -> None:
        params: Json = {"follow": True}
        if self._requested_attempt is not None:
            params["attempt"] = self._requested_attempt
        self._write_ended_attempts(client)
        reply = self._fetch(client, params)
        while 0 < self._attempt < reply["attempt"]:
            # This attempt began after the `run.get`: `cursor` is no offset in its output.
            client.call("run.unwatch", {"subscription": reply["subscription"]})
            self._write_ended_attempts(client)
            reply = self._fetch(client, params)
        self._write_reply(reply)
        self.subscription = reply.get("subscription")
        self.is_open = True

    def handle(self, client: Client, method: str, params: Json) -> None:
        if method == "run.log":
            self._write_chunk(client, params)
        elif method == "run.gap":
            self.drain(client)
        elif method == "run.end":
            self.drain(client)
            check_end(params)
            self.is_done = True

    def drain(self, client: Client) -> None:
        """Write all available output after the cursor, of the current attempt of this stream."""
        while True:
            before = self.cursor
            self._write_reply(self._fetch(client, {"attempt": self._attempt} if self._attempt else {}))
            if self.cursor <= before:
                return

    def _write_ended_attempts(self, client: Client) -> None:
        """After a reconnect, write the rest of each older attempt, and continue with the newest attempt."""
        if self._requested_attempt is not None or not self._attempt:
            return
        newest = client.call("run.get", {"run_id": self.run_id})["attempt"]
        while self._attempt < newest:
            self.drain(client)
            self._attempt, self.cursor = self._attempt + 1, 0

    def _fetch(self, client: Client, extra: Json) -> Json:
        """Request output from the cursor on, and return the reply."""
        params: Json = {"run_id": self.run_id, "stream": self.stream, "cursor": self.cursor, **extra}
        reply: Json = client.call("run.logs", params | self._start_params)
        return reply

    def _write_reply(self, reply: Json) -> None:
        """Write the output of a reply; first report output before it that was not kept."""
        data = chunk_bytes(reply)
        gap = reply.get("gap")
        if self._start_params:
            # The daemon chose where the first reply begins (--tail, --since); later requests use the cursor.
            self._start_params = {}
            self.cursor = gap["from"] if gap else reply["cursor"] - len(data)
        self._attempt = reply.get("attempt") or self._attempt
        if gap and gap["to"] > self.cursor:
            self.on_gap(self.cursor, gap["to"])
            self.cursor = gap["to"]
        self._write_new(reply["cursor"], data)

    def _write_chunk(self, client: Client, chunk: Json) -> None:
        """Write a notified chunk; fetch missing output before it first."""
        attempt = chunk.get("attempt") or self._attempt
        if attempt != self._attempt:
            self._attempt, self.cursor = attempt, 0
        data = chunk_bytes(chunk)
        if chunk["cursor"] - len(data) > self.cursor:
            self.drain(client)
        self._write_new(chunk["cursor"], data)

    def _write_new(self, end: int, data: bytes) -> None:
        """Write the part of `data` after the cursor; `data` ends at offset `end`."""
        new_count = end - self.cursor
        if new_count > 0:
            self._write(data[-new_count:] if new_count < len(data) else data)
            self.cursor = end


class Streams:
    """The streams of one client: `step` subscribes, processes one notification, and may reconnect."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._streams: list[Stream] = []
        self._generation = client.generation

    def add(self, stream: Stream) -> None:
        """Add a stream; the next step opens it."""
        self._streams.append(stream)

    def step(self, timeout_s: float | None = None) -> bool:
        """Process one notification; return False if none arrived within the time."""
        try:
            self._open_streams()
            item = self.client.next_notification(timeout_s)
            if item is None:
                return False
            self._deliver(*item)
        except Disconnected:
            reconnect(self.client)
        except (Unavailable, Draining):
            time.sleep(0.1)
        return True

    def _open_streams(self) -> None:
        """Subscribe every stream that is not open and not done; a new connection has no subscriptions."""
        if self._generation != self.client.generation:
            self._generation = self.client.generation
            for stream in self._streams:
                stream.is_open, stream.subscription = False, None
        for stream in list(self._streams):
            if not stream.is_open and not stream.is_done:
                stream.open(self.client)
                self._generation = self.client.generation  # opening a stream may have reconnected the client

    def _deliver(self, method: str, params: Json) -> None:
        """Pass a notification to the stream of its subscription."""
        for stream in self._streams:
            if stream.is_open and not stream.is_done and stream.subscription == params.get("subscription"):
                stream.handle(self.client, method, params)
                return
