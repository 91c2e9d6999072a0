"""One blocking connection to the daemon: find the socket, call methods, take notifications.

A connection carries replies and notifications mixed; `call` keeps the notifications that it meets for
`next_notification`, in order.  If the daemon goes away before it answers (a restart), `call` connects again
and repeats the request, unless that could start a second run.
Note: once a stream is open, `call` repeats nothing, because only the stream knows its cursor.  The streams
reconnect themselves (`reconnecting`).
"""

import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from errno import EACCES, ECONNREFUSED
from math import ceil, inf
from typing import Any

from mosaicd.protocol import Json
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.errors import Draining, TimedOut, from_wire
from mosaicd.protocol.framing import LineReader, Oversized, encode, request

SOCKET_NAME = "mosaicd/mosaicd.sock"
SYSTEM_SOCKET = "/run/mosaicd/mosaicd.sock"
#: The longest reply that is believed; the daemon pages long before.
REPLY_LIMIT_BYTES = 64 << 20
#: How long a call waits for its reply: a little more than the daemon's own longest deadline.
CALL_TIMEOUT_S = 65.0
#: If the daemon goes away in the middle of a call, how long it may take to come back.
PATIENCE_S = 10.0
_PAUSE_FIRST_S = 0.02
_PAUSE_MOST_S = 0.5
_POLL_MOST_S = 3600.0
#: Methods that are not repeated: they make a new run (unless a key names it), or belong to one connection.
_ONCE = frozenset(
    "daemon.hello daemon.health daemon.backup daemon.reexec run.submit run.retry run.watch".split()
)


class NoDaemon(Exception):
    """No socket answered; `tried` pairs each path with the reason."""

    def __init__(self, tried: list[tuple[str, str]]) -> None:
        self.tried = tried
        places = "\n".join(f"  {path}: {reason}" for path, reason in tried)
        super().__init__(
            f"no daemon answers\n{places}\n"
            "  Live runs continue without a daemon.\n"
            "  To start one: `systemctl --user start mosaicd`, or `mosaicd` in a terminal.\n"
            "  To use another socket: --socket PATH or $MOSAICD_SOCKET."
        )


class Disconnected(Exception):
    """The daemon closed the connection in the middle of a conversation."""


def user_socket(environment: Any = os.environ) -> str:
    """Return where a daemon of this user listens, by the daemon's own rule."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and runtime.startswith("/"):
        return f"{runtime}/{SOCKET_NAME}"
    uid = os.getuid()
    if os.path.isdir(f"/run/user/{uid}"):
        return f"/run/user/{uid}/{SOCKET_NAME}"
    return f"/tmp/mosaicd-{uid}/mosaicd.sock"


def candidates(option: str | None, environment: Any = os.environ) -> list[str]:
    """Return the sockets to try, in order; a socket that was named is the only one."""
    named = option or environment.get("MOSAICD_SOCKET")
    if named:
        return [named]
    return [user_socket(environment), SYSTEM_SOCKET]


def connect(option: str | None = None) -> "Client":
    """Return a connection to the first socket that answers; NoDaemon says why none did."""
    tried: list[tuple[str, str]] = []
    for path in candidates(option):
        try:
            return Client(_connected(path), path)
        except OSError as error:
            tried.append((path, _reason(error)))
    raise NoDaemon(tried)


def _connected(path: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
    except OSError:
        link.close()
        raise
    return link


def _readable(descriptors: list[int], timeout_s: float) -> list[int]:
    poll = select.poll()  # select would refuse descriptors above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(ceil(timeout_s * 1000))]


def _reason(error: OSError) -> str:
    if error.errno is None:
        return "the path is too long for a socket"
    reason = error.strerror or str(error)
    if error.errno == ECONNREFUSED:
        return f"{reason}: the daemon of this socket has ended"
    return f"{reason}: the socket belongs to another user" if error.errno == EACCES else reason


class OnDemand:
    """A connection that is made when it is first called for; nothing is asked of anybody before."""

    def __init__(self, option: str | None) -> None:
        self._option = option
        self._client: Client | None = None

    def __call__(self) -> "Client":
        """Return the connection; NoDaemon says why there is none."""
        if self._client is None:
            self._client = connect(self._option)
        return self._client

    def __enter__(self) -> "OnDemand":
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


class Client:
    """A connection: requests out, replies and notifications in."""

    def __init__(self, link: socket.socket, path: str = "") -> None:
        self.path = path
        self._socket = link
        self._reader = LineReader(REPLY_LIMIT_BYTES)
        self._notifications: deque[tuple[str, Json]] = deque()
        self._replies: dict[int, Json] = {}
        self._last_id = 0
        self._has_streams = False
        #: How many connections there were: subscriptions belong to one of them.
        self.generation = 1
        #: A descriptor that is readable after a signal: `next_notification` and `reconnect` then end early.
        self.wake_fd: int | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def call(self, method: str, params: Json | None = None, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        """Return the method's result; the daemon's error, TimedOut or Disconnected otherwise."""
        params = params or {}
        self._has_streams |= method == "run.watch" or bool(params.get("follow"))
        give_up_mono: float | None = None
        while True:
            try:
                return self._ask(method, params, timeout_s)
            except (Disconnected, Draining) as error:
                if not self._may_repeat(method, params):
                    raise
                give_up_mono = give_up_mono or time.monotonic() + PATIENCE_S
                try:
                    self.reconnect(give_up_mono)
                except TimedOut:
                    raise error from None

    def _may_repeat(self, method: str, params: Json) -> bool:
        if self._has_streams or not self.path:
            return False
        return method not in _ONCE or params.get("key") is not None

    def reconnect(
        self, give_up_mono: float | None = None, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        """Connect to the same daemon again and return when it answers; TimedOut at `give_up_mono`.

        `on_failure` is called after each try that failed.  KeyboardInterrupt if a signal arrives.
        """
        self._socket.close()
        backoff = Backoff(_PAUSE_FIRST_S, _PAUSE_MOST_S)
        while True:
            if give_up_mono is not None and time.monotonic() >= give_up_mono:
                raise TimedOut("no daemon answered within the time limit")
            self.pause(backoff.next_s())
            try:
                self._socket = _connected(self.path)
                self._reader = LineReader(REPLY_LIMIT_BYTES)
                self._notifications.clear()
                self._has_streams = False
                # A daemon that is about to exit may still accept a connection: only an answer counts.
                self._ask("daemon.hello", {"client": "mosaicctl"}, CALL_TIMEOUT_S)
            except (OSError, Disconnected, Draining):
                self._socket.close()
                on_failure()
            else:
                self.generation += 1
                return

    def pause(self, seconds: float) -> None:
        """Wait; KeyboardInterrupt if `wake_fd` says that a signal has arrived."""
        if self.wake_fd is None:
            time.sleep(seconds)
        elif _readable([self.wake_fd], seconds):
            raise KeyboardInterrupt

    def _ask(self, method: str, params: Json, timeout_s: float | None) -> Any:
        self._last_id += 1
        number = self._last_id
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            self._socket.sendall(encode(request(method, params, number)))
        except OSError as error:
            raise Disconnected(f"the connection to the daemon was lost: {error.strerror}") from error
        while number not in self._replies:
            if not self._wait(deadline, ()):
                raise TimedOut(f"the daemon did not answer {method} within {timeout_s:g} s")
            self._receive()
        reply = self._replies.pop(number)
        if "error" in reply:
            raise from_wire(reply["error"])
        return reply.get("result")

    def next_notification(self, timeout_s: float | None = None) -> tuple[str, Json] | None:
        """Return the next (method, params); None when the time passed or `wake_fd` spoke first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._notifications:
            wake = () if self.wake_fd is None else (self.wake_fd,)
            if not self._wait(deadline, wake):
                return None
            self._receive()
        return self._notifications.popleft()

    def _wait(self, deadline: float | None, wake: tuple[int, ...]) -> bool:
        """Wait until the socket has something; False when the deadline or a wake-up came first."""
        while True:
            left_s = inf if deadline is None else deadline - time.monotonic()
            ready = _readable([self._socket.fileno(), *wake], min(max(0.0, left_s), _POLL_MOST_S))
            if any(fd in ready for fd in wake):
                os.read(wake[0], 512)
                return False
            if ready or left_s <= _POLL_MOST_S:
                return bool(ready)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except OSError as error:
            raise Disconnected(f"the connection to the daemon was lost: {error.strerror}") from error
        if not data:
            raise Disconnected("the daemon closed the connection")
        for line in self._reader.feed(data):
            if isinstance(line, Oversized):
                raise Disconnected(f"the daemon sent a message of more than {REPLY_LIMIT_BYTES >> 20} MiB")
            self._sort(line)

    def _sort(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Disconnected(
                "the program at this socket is not mosaicd: it did not answer in JSON"
            ) from error
        if "method" in message:
            self._notifications.append((message["method"], message.get("params") or {}))
        elif isinstance(message.get("id"), int):
            self._replies[message["id"]] = message
        elif "error" in message:
            # An error without an id answers a line that the daemon could not read: it ends the talk.
            raise from_wire(message["error"])
