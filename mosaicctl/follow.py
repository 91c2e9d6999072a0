"""Streams that outlive a restart of the daemon: events of the ledger, and output, from a cursor on.

Note: the reply to a subscription and its first notifications may overlap, and a new connection may repeat
them.  A stream drops everything before its cursor, and fetches what was skipped.
Cursors of output are byte offsets of one attempt; cursors of events are `seq`.
"""

import time
from base64 import b64decode
from collections.abc import Callable

from mosaicctl.client import Client, Disconnected
from mosaicctl.reconnecting import reconnect
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict, Draining, InternalError, Unavailable


def raw(chunk: Json) -> bytes:
    """Return the bytes of a chunk of output, whichever way they were sent."""
    data = str(chunk.get("data") or "")
    return b64decode(data) if chunk.get("encoding") == "base64" else data.encode("utf-8", "surrogateescape")


def is_over(end: Json) -> bool:
    """Whether all was told; Disconnected when the daemon leaves, InternalError when it failed."""
    reason = end.get("reason")
    if reason == "error":
        reference = end.get("reference")
        raise InternalError(f"the daemon has an internal error; its log has it as reference {reference}")
    if reason not in ("terminated", "unsubscribed"):
        raise Disconnected(f"the daemon ended the stream: {reason}")
    return True


class Stream:
    """One subscription; `is_open` is false until it (again) has one, `is_done` when it wants none."""

    def __init__(self) -> None:
        self.subscription: object = None
        self.is_open = False
        self.is_done = False

    def open(self, client: Client) -> None:
        """Subscribe, from the cursor on."""
        raise NotImplementedError

    def take(self, client: Client, method: str, params: Json) -> None:
        """Take in one notification of this subscription."""
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

    def take(self, client: Client, method: str, params: Json) -> None:
        if method == "run.event":
            if self.cursor is None or params["seq"] > self.cursor:
                self.on_event(params)
                self.cursor = params["seq"]
        elif method == "run.progress":
            self.on_progress(params)
        elif method == "run.gap":
            # The ledger still has what a slow reader missed: ask for it again from the cursor.
            self.is_open = False
            client.call("run.unwatch", {"subscription": self.subscription})
        elif method == "run.end":
            self.is_done = is_over(params)


class LogStream(Stream):
    """Output, byte for byte, to `write`: of one attempt, or of the newest and all that follow."""

    def __init__(
        self, run_id: str, stream: str, write: Callable[[bytes], object], attempt: int | None = None,
        tail_lines: int | None = None, since: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.run_id, self.stream = run_id, stream
        self.on_gap: Callable[[int, int], None] = lambda first, end: None
        self.cursor = 0
        self._asked = attempt
        self._attempt = attempt or 0  # the one that `cursor` is an offset of; 0: none yet
        self._write = write
        begin: Json = {"tail_lines": tail_lines, "since": since}
        self._begin = {name: value for name, value in begin.items() if value is not None}

    def open(self, client: Client) -> None:
        self._catch_up(client)
        params = {"follow": True} if self._asked is None else {"follow": True, "attempt": self._asked}
        reply = self._ask(client, params)
        self.subscription = reply.get("subscription")
        self.is_open = True

    def take(self, client: Client, method: str, params: Json) -> None:
        if method == "run.log":
            self._accept(client, params)
        elif method == "run.gap":
            self.drain(client)
        elif method == "run.end":
            self.drain(client)
            self.is_done = is_over(params)

    def drain(self, client: Client) -> None:
        """Write all that there is by now after the cursor, of the attempt that is being read."""
        while True:
            before = self.cursor
            self._ask(client, {"attempt": self._attempt} if self._attempt else {})
            if self.cursor <= before:
                return

    def _catch_up(self, client: Client) -> None:
        """Finish attempts that ended while we had no connection: the cursor must be of the newest attempt."""
        if self._asked is not None or not self._attempt:
            return
        newest = client.call("run.get", {"run_id": self.run_id})["attempt"]
        while self._attempt < newest:
            self.drain(client)
            self._attempt, self.cursor = self._attempt + 1, 0

    def _ask(self, client: Client, more: Json) -> Json:
        params: Json = {"run_id": self.run_id, "stream": self.stream, "cursor": self.cursor, **more}
        params |= self._begin
        reply: Json = client.call("run.logs", params)
        data = raw(reply)
        gap = reply.get("gap")
        if self._begin:
            # The first reply begins where the daemon found that; from here on the cursor counts.
            self._begin = {}
            self.cursor = gap["from"] if gap else reply["cursor"] - len(data)
        self._attempt = reply.get("attempt") or self._attempt
        if gap and gap["to"] > self.cursor:
            self.on_gap(self.cursor, gap["to"])
            self.cursor = gap["to"]
        self._advance(reply["cursor"], data)
        return reply

    def _accept(self, client: Client, chunk: Json) -> None:
        attempt = chunk.get("attempt") or self._attempt
        if attempt != self._attempt:
            self._attempt, self.cursor = attempt, 0
        data = raw(chunk)
        if chunk["cursor"] - len(data) > self.cursor:
            self.drain(client)
        self._advance(chunk["cursor"], data)

    def _advance(self, end: int, data: bytes) -> None:
        """Write the part of `data`, which ends at offset `end`, that the cursor has not passed."""
        fresh = end - self.cursor
        if fresh > 0:
            self._write(data[-fresh:] if fresh < len(data) else data)
            self.cursor = end


class Streams:
    """Several streams of one client: `step` opens what is closed, takes one notification, reconnects."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._streams: list[Stream] = []
        self._generation = client.generation

    def add(self, stream: Stream) -> None:
        """Let `stream` be opened at the next step."""
        self._streams.append(stream)

    def step(self, timeout_s: float | None = None) -> bool:
        """Return whether a notification was taken within the time."""
        try:
            self._open()
            item = self.client.next_notification(timeout_s)
            if item is None:
                return False
            self._deliver(*item)
        except Disconnected:
            reconnect(self.client)
        except (Unavailable, Draining):
            time.sleep(0.1)
        return True

    def _open(self) -> None:
        if self._generation != self.client.generation:
            self._generation = self.client.generation
            for stream in self._streams:
                stream.is_open, stream.subscription = False, None
        for stream in list(self._streams):
            if not stream.is_open and not stream.is_done:
                stream.open(self.client)
                self._generation = self.client.generation  # the first one may have reconnected

    def _deliver(self, method: str, params: Json) -> None:
        for stream in self._streams:
            if stream.is_open and not stream.is_done and stream.subscription == params.get("subscription"):
                stream.take(self.client, method, params)
                return
