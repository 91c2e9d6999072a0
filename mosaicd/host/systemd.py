"""The protocol of the service manager: readiness, status, watchdog, passed sockets.  No-ops without one.

The sdnotify library sends the messages.  This module works around three faults of it: it encodes as latin-1
(other characters are lost), it blocks if the manager does not read, and it hides errors.  A watchdog message
is sent only if `is_healthy` confirms that the daemon works.
"""

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

import sdnotify

from mosaicd import log
from mosaicd.config import Supervisor

FIRST_PASSED_FD = 3
#: The watchdog timeout during a reexec, which may include a migration.
BEGINNING_S = 180.0
#: The time between the first check that finds the daemon unhealthy and the second.
SECOND_CHECK_S = 0.5


class Notifier:
    """Notifications to systemd; each method returns whether the manager's socket accepted it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.watchdog_s = supervisor.watchdog_s
        self._unsent: list[str] = []
        self._sender: sdnotify.SystemdNotifier | None = None
        if supervisor.notify_socket is None:
            return
        sender = sdnotify.SystemdNotifier()
        if sender.socket is None:
            log.event(log.Catalogue.NOTIFY_SOCKET_DEAD, path=supervisor.notify_socket)
            return
        sender.socket.setblocking(False)
        sender.debug = True  # errors are raised, and handled here
        self._sender = sender

    def ready(self, status: str) -> bool:
        """Send READY=1: all requests are answered from now on; if it fails, it is sent again later."""
        return self._send(f"READY=1\nSTATUS={_line(status)}{self._watchdog(self.watchdog_s)}", retries=True)

    def status(self, text: str) -> bool:
        """Show one line in `systemctl status`."""
        return self._send(f"STATUS={_line(text)}")

    def stopping(self) -> bool:
        """Send STOPPING=1."""
        return self._send("STOPPING=1")

    def reloading(self, mono: float) -> bool:
        """Send RELOADING=1 for a reexec; `ready` ends it, and the watchdog waits until then."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={int(mono * 1e6)}{self._watchdog(BEGINNING_S)}")

    def _watchdog(self, seconds: float | None) -> str:
        if self.watchdog_s is None or seconds is None:
            return ""
        return f"\nWATCHDOG_USEC={int(seconds * 1e6)}"

    async def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Send watchdog messages at half the interval while `is_healthy`; without a watchdog, return.

        Running this coroutine proves that the event loop works; `is_healthy` checks the rest (the registry's
        writer).  A message is withheld, and this is logged once, only after a second check: a daemon that was
        suspended, or started slowly, finds an old time stamp at the first check.
        """
        was_healthy = True
        while self.watchdog_s is not None and self._sender is not None:
            is_well = is_healthy()
            if not is_well:
                await asyncio.sleep(min(SECOND_CHECK_S, self.watchdog_s / 4))
                is_well = is_healthy()
            if is_well:
                self._send("WATCHDOG=1")
            elif was_healthy:
                log.event(log.Catalogue.WATCHDOG_WITHHELD, watchdog_s=self.watchdog_s)
            was_healthy = is_well
            await asyncio.sleep(self.watchdog_s / 2)

    def close(self) -> None:
        """Close the socket; later calls are no-ops."""
        if self._sender is not None:
            self._sender.socket.close()
            self._sender = None

    def _send(self, text: str, *, retries: bool = False) -> bool:
        """Send the unsent messages and `text`; with `retries`, a `text` that fails is sent again later."""
        if self._sender is None:
            return False
        queue = [*self._unsent, text]
        while queue:
            try:
                # sdnotify encodes latin-1, which gives these bytes back unchanged: UTF-8 on the wire
                self._sender.notify(queue[0].encode("utf-8", "replace").decode("latin-1"))
            except OSError:
                break
            del queue[0]
        self._unsent = queue if retries else [message for message in queue if message in self._unsent]
        return not queue


def _line(text: str) -> str:
    return " ".join(text.split())


def listen_fds(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd passed to this process, close-on-exec; an empty list if there are none.

    The variables are removed from `environ`, so that no child uses them.  Raises ValueError if a passed
    descriptor is not a socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    passed = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)):
        try:
            os.set_inheritable(fd, False)
            passed.append(socket.socket(fileno=fd))
        except OSError as error:
            raise ValueError(
                f"descriptor {fd}, passed by systemd, is not a socket: {error.strerror}"
            ) from error
    return passed
