"""One blocking connection to the daemon: find the socket, call methods, receive notifications.

Replies and notifications arrive mixed; while `call` waits for its reply, it keeps notifications for
`next_notification`, in order.  If the daemon exits before it answers (a restart), `call` connects again
and repeats the request, unless that could start a second run.
Note: once a stream is open, `call` repeats nothing, because only the stream knows its cursor.  The streams
reconnect themselves (`reconnecting`).
"""

import json
import os
import select
import socket
import struct
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
#: The longest message that the client accepts; the daemon splits long answers into much smaller pages.
REPLY_LIMIT_BYTES = 64 << 20
#: How long a call waits for its reply: a little more than the daemon's own longest deadline.
CALL_TIMEOUT_S = 65.0
#: How long a call tries to connect again after the daemon has closed the connection.
RECONNECT_TIMEOUT_S = 10.0
_BACKOFF_FIRST_S = 0.02
_BACKOFF_MAX_S = 0.5
_POLL_MAX_S = 3600.0
#: Methods that are not repeated on a new connection: they make a new run (unless the request has a key), or
#: their effect or answer belongs to one connection or one daemon process.  An upload belongs to its
#: connection, so a submit that names one is not repeated, even with a key; `stdin` uploads again.
_NOT_REPEATED = frozenset(
    """daemon.hello daemon.health daemon.backup daemon.reexec input.open input.write run.submit run.retry
    run.watch""".split()
)


class NoDaemon(Exception):
    """No socket answered; `tried` pairs each path with the reason."""

    def __init__(self, tried: list[tuple[str, str]]) -> None:
        self.tried = tried
        attempts = "\n".join(f"  {path}: {reason}" for path, reason in tried)
        super().__init__(
            f"no daemon answers\n{attempts}\n"
            "  Live runs continue without a daemon.\n"
            "  To start one: `systemctl --user start mosaicd`, or `mosaicd` in a terminal.\n"
            "  To use another socket: --socket PATH or $MOSAICD_SOCKET."
        )


class Disconnected(Exception):
    """The daemon closed the connection in the middle of a conversation."""


def user_socket(environment: Any = os.environ) -> str:
    """Return the default socket of this user's daemon, by the same rule as the daemon."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and runtime.startswith("/"):
        return f"{runtime}/{SOCKET_NAME}"
    uid = os.getuid()
    if os.path.isdir(f"/run/user/{uid}"):
        return f"/run/user/{uid}/{SOCKET_NAME}"
    return f"/tmp/mosaicd-{uid}/mosaicd.sock"


def socket_paths(option: str | None, environment: Any = os.environ) -> list[str]:
    """Return the sockets to try, in order; if --socket or $MOSAICD_SOCKET names one, only that one."""
    explicit = option or environment.get("MOSAICD_SOCKET")
    if explicit:
        return [explicit]
    return [user_socket(environment), SYSTEM_SOCKET]


def connect(option: str | None = None) -> "Client":
    """Return a connection to the first socket that answers; NoDaemon has the reason for each socket."""
    tried: list[tuple[str, str]] = []
    for path in socket_paths(option):
        try:
            return Client(_open_socket(path), path)
        except OSError as error:
            tried.append((path, _failure_reason(error)))
    raise NoDaemon(tried)


def _open_socket(path: str) -> socket.socket:
    """Return a stream socket that is connected to `path`.

    The user's own socket may be in /tmp, where another user can make it first: a listener of another user is
    refused before anything is sent.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
        if path == user_socket() and _listener_uid(link) not in (0, os.geteuid()):
            raise OSError(EACCES, os.strerror(EACCES))
    except OSError:
        link.close()
        raise
    return link


def _listener_uid(link: socket.socket) -> int:
    """Return the user of the process that listens at the other end."""
    _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _wait_readable(descriptors: list[int], timeout_s: float) -> list[int]:
    """Wait until a descriptor is readable, or for `timeout_s`; return the readable descriptors."""
    poll = select.poll()  # select would refuse descriptors above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(ceil(timeout_s * 1000))]


def _failure_reason(error: OSError) -> str:
    """Return why a connection failed, for the user."""
    if error.errno is None:
        return "the path is too long for a socket"
    reason = error.strerror or str(error)
    if error.errno == ECONNREFUSED:
        return f"{reason}: the daemon of this socket has ended"
    return f"{reason}: the socket belongs to another user" if error.errno == EACCES else reason


class OnDemandClient:
    """A connection that is opened at the first call of this object."""

    def __init__(self, option: str | None) -> None:
        self._option = option
        self._client: Client | None = None

    def __call__(self) -> "Client":
        """Return the connection, opened at the first call; raise NoDaemon if no socket answers."""
        if self._client is None:
            self._client = connect(self._option)
        return self._client

    def __enter__(self) -> "OnDemandClient":
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


class Client:
    """A connection to the daemon."""

    def __init__(self, link: socket.socket, path: str = "") -> None:
        self.path = path
        self._socket = link
        self._reader = LineReader(REPLY_LIMIT_BYTES)
        self._notifications: deque[tuple[str, Json]] = deque()
        self._replies: dict[int, Json] = {}
        self._last_id = 0
        self._has_streams = False
        #: The number of this connection; a subscription belongs to one connection.
        self.generation = 1
        #: A descriptor that is readable after a signal: `next_notification` and `reconnect` then end early.
        self.wake_fd: int | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(self, method: str, params: Json | None = None, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        """Return the method's result; raise the error of the daemon, TimedOut or Disconnected."""
        params = params or {}
        self._has_streams |= method == "run.watch" or bool(params.get("follow"))
        deadline_mono: float | None = None
        while True:
            try:
                return self._call_once(method, params, timeout_s)
            except (Disconnected, Draining) as error:
                if not self._may_repeat(method, params):
                    raise
                deadline_mono = deadline_mono or time.monotonic() + RECONNECT_TIMEOUT_S
                try:
                    self.reconnect(deadline_mono)
                except TimedOut:
                    raise error from None

    def _may_repeat(self, method: str, params: Json) -> bool:
        """Return whether a request may be sent again on a new connection."""
        if self._has_streams or not self.path:
            return False
        has_key = params.get("key") is not None and params.get("stdin") is None
        return method not in _NOT_REPEATED or has_key

    def reconnect(
        self, deadline_mono: float | None = None, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        """Connect to the same daemon again and return when it answers; TimedOut at `deadline_mono`.

        `on_failure` is called after each failed attempt.  A signal raises KeyboardInterrupt (see `sleep`).
        """
        self._socket.close()
        backoff = Backoff(_BACKOFF_FIRST_S, _BACKOFF_MAX_S)
        while True:
            if deadline_mono is not None and time.monotonic() >= deadline_mono:
                raise TimedOut("no daemon answered within the time limit")
            self.sleep(backoff.next_s())
            try:
                self._socket = _open_socket(self.path)
                self._reader = LineReader(REPLY_LIMIT_BYTES)
                self._notifications.clear()
                self._has_streams = False
                # A daemon that is about to exit may still accept a connection, so wait for an answer.
                self._call_once("daemon.hello", {"client": "mosaicctl"}, CALL_TIMEOUT_S)
            except (OSError, Disconnected, Draining):
                self._socket.close()
                on_failure()
            else:
                self.generation += 1
                return

    def sleep(self, seconds: float) -> None:
        """Wait; raise KeyboardInterrupt if `wake_fd` becomes readable (a signal has arrived)."""
        if self.wake_fd is None:
            time.sleep(seconds)
        elif _wait_readable([self.wake_fd], seconds):
            raise KeyboardInterrupt

    def _call_once(self, method: str, params: Json, timeout_s: float | None) -> Any:
        """Send one request on this connection and return its result."""
        self._last_id += 1
        number = self._last_id
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            self._socket.sendall(encode(request(method, params, number)))
        except OSError as error:
            raise Disconnected(f"the connection to the daemon was lost: {error.strerror}") from error
        while number not in self._replies:
            if not self._wait_for_data(deadline, ()):
                raise TimedOut(f"the daemon did not answer {method} within {timeout_s:g} s")
            self._receive_messages()
        reply = self._replies.pop(number)
        if "error" in reply:
            raise from_wire(reply["error"])
        return reply.get("result")

    def next_notification(self, timeout_s: float | None = None) -> tuple[str, Json] | None:
        """Return the next (method, params); None after `timeout_s`, or if `wake_fd` is readable first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._notifications:
            wake = () if self.wake_fd is None else (self.wake_fd,)
            if not self._wait_for_data(deadline, wake):
                return None
            self._receive_messages()
        return self._notifications.popleft()

    def _wait_for_data(self, deadline: float | None, wake: tuple[int, ...]) -> bool:
        """Wait until the socket is readable; return False at the deadline, or if `wake` is readable first."""
        while True:
            remaining_s = inf if deadline is None else deadline - time.monotonic()
            ready = _wait_readable([self._socket.fileno(), *wake], min(max(0.0, remaining_s), _POLL_MAX_S))
            if any(fd in ready for fd in wake):
                os.read(wake[0], 512)
                return False
            if ready or remaining_s <= _POLL_MAX_S:
                return bool(ready)

    def _receive_messages(self) -> None:
        """Read from the socket once and store each complete message."""
        try:
            data = self._socket.recv(1 << 18)
        except OSError as error:
            raise Disconnected(f"the connection to the daemon was lost: {error.strerror}") from error
        if not data:
            raise Disconnected("the daemon closed the connection")
        for line in self._reader.feed(data):
            if isinstance(line, Oversized):
                raise Disconnected(f"the daemon sent a message of more than {REPLY_LIMIT_BYTES >> 20} MiB")
            self._store_message(line)

    def _store_message(self, line: bytes) -> None:
        """Store one message as a notification or a reply; raise an error that has no request id."""
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
            # An error without an id answers a line that the daemon could not parse; it closes the connection.
            raise from_wire(message["error"])
