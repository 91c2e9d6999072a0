"""A fake daemon on the shims' socket: a JSON-RPC line server that records messages and can be restarted.

There is no thread: `pump` handles the messages that have arrived, and every wait pumps.
"""

import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mosaicd.protocol import Json, framing
from tests.harness.waiting import wait_until

T = TypeVar("T")


class Connection:
    """The connection of one shim."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.reader = framing.LineReader()
        self.run_id: str | None = None


class Peer:
    """Registers, facts and advances of every run, in the order of their arrival."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.registers: list[Json] = []
        self.facts: list[Json] = []
        self.advances: list[Json] = []
        self.longest_line = 0
        self.answer: Callable[[Json], Json] = default_answer
        self.acknowledges = True
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._connections: list[Connection] = []
        self._tokens = 0
        self.open()

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._listener = listener

    def close(self) -> None:
        """Close the socket and all connections, like a killed daemon."""
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            os.unlink(self.path)
        for connection in list(self._connections):
            self._drop(connection)

    def control(self, run_id: str, word: str, **params: Any) -> None:
        connection = next(c for c in reversed(self._connections) if c.run_id == run_id)
        self._send(connection, framing.request(f"control.{word}", params, None))

    def pump(self, timeout_s: float = 0.02) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif key.data is not None:
                self._read(key.data)

    def pump_for(self, seconds: float) -> None:
        """Handle messages for `seconds`."""
        end_mono = time.monotonic() + seconds
        while (left_s := end_mono - time.monotonic()) > 0:
            self.pump(left_s)

    def wake_for(self, stream: socket.socket) -> None:
        """End a pump also when `stream` can be read; the caller reads it."""
        self._selector.register(stream, selectors.EVENT_READ, None)

    def forget(self, stream: socket.socket) -> None:
        self._selector.unregister(stream)

    def until(
        self, what: Callable[[], T], timeout_s: float = 25.0, shown: Callable[[], Any] | None = None
    ) -> T:
        """Return the first true value of `what`; after the timeout, fail with `shown`."""
        return wait_until(what, deadline_s=timeout_s, pause=self.pump, shown=shown)

    def wait_for_registers(self, count: int) -> None:
        """Wait until `count` registers have arrived."""
        self.until(lambda: len(self.registers) == count, shown=lambda: self.registers)

    def facts_of(self, run_id: str, name: str | None = None) -> list[Json]:
        return [f for f in self.facts if f["run_id"] == run_id and name in (None, f["fact"])]

    def last_advance(self, run_id: str) -> Json | None:
        return next((a for a in reversed(self.advances) if a["run_id"] == run_id), None)

    def _accept(self) -> None:
        assert self._listener
        stream, _ = self._listener.accept()
        connection = Connection(stream)
        self._connections.append(connection)
        self._selector.register(stream, selectors.EVENT_READ, connection)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.stream)
        connection.stream.close()
        self._connections.remove(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.stream.recv(1 << 16)
        except (BlockingIOError, ConnectionResetError):
            data = b""
        if not data:
            self._drop(connection)
            return
        for line in connection.reader.feed(data):
            self.longest_line = max(self.longest_line, len(line))
            self._take(connection, json.loads(line))

    def _take(self, connection: Connection, message: Json) -> None:
        params = message["params"]
        if message["method"] == "worker.register":
            connection.run_id = params["run_id"]
            self.registers.append(params)
            self._tokens += 1
            answer = self.answer(params)
            if "error" not in answer:
                token = f"token-{self._tokens}"
                answer = {"result": {"accepted_version": 1, "session_token": token, **answer}}
            self._send(connection, {"jsonrpc": "2.0", "id": message["id"], **answer})
        elif message["method"] == "worker.fact":
            if not self.acknowledges:
                return
            self.facts += [{"run_id": params["run_id"], **fact} for fact in params["facts"]]
            result = {"accepted": len(params["facts"]), "rejected": []}
            self._send(connection, {"jsonrpc": "2.0", "id": message["id"], "result": result})
        else:
            assert message["method"] == "worker.advance", message
            self.advances.append(params)

    def _send(self, connection: Connection, message: Json) -> None:
        try:
            connection.stream.sendall(framing.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            self._drop(connection)


def default_answer(params: Json) -> Json:
    """Return a reply that starts a new attempt, and lets a started one continue."""
    word = "attach" if params["status"]["spawned"] else "start"
    return {"order": word, "want": "run", "pause_mode": None, "grace_s": 1.0, "stop": None}
