"""Talking to the service manager: readiness, status, watchdog, passed sockets.  Without one, all no-ops.

The sdnotify library does the sending; what it gets wrong is put right here: it encodes as latin-1 (a
status outside of it is lost), it blocks when nobody reads, and it keeps its errors to itself.
A watchdog tick is a promise that the daemon works, so it is sent only when `is_healthy` agrees.
"""

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

import sdnotify

from mosaicd import log
from mosaicd.config import Supervisor

FIRST_PASSED_FD = 3
#: How long a daemon that becomes another program may take until it ticks again (a migration, say).
BEGINNING_S = 180.0
#: From one look at who has not worked for too long to the second.
LOOK_AGAIN_S = 0.5


class Notifier:
    """Notifications to systemd; each method says whether the manager's socket took it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.watchdog_s = supervisor.watchdog_s
        self._owed: list[str] = []
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
        """Say that every request is answered from now on; said again later if it could not be sent."""
        return self._send(f"READY=1\nSTATUS={_line(status)}{self._watchdog(self.watchdog_s)}", is_owed=True)

    def status(self, text: str) -> bool:
        """Show one line in `systemctl status`."""
        return self._send(f"STATUS={_line(text)}")

    def stopping(self) -> bool:
        """Say that the daemon is on its way out."""
        return self._send("STOPPING=1")

    def reloading(self, mono: float) -> bool:
        """Say that this process begins anew; `ready` ends it, and the watchdog waits until then."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={int(mono * 1e6)}{self._watchdog(BEGINNING_S)}")

    def _watchdog(self, seconds: float | None) -> str:
        if self.watchdog_s is None or seconds is None:
            return ""
        return f"\nWATCHDOG_USEC={int(seconds * 1e6)}"

    async def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Tick twice as often as the watchdog wants while `is_healthy`; returns at once without a watchdog.

        That this coroutine gets its turn proves the loop; `is_healthy` has to speak for the rest (the
        registry's writer).  A tick that is withheld is logged, once an episode, and after a second look: a
        daemon that was held up itself, or that took long to start, at first finds its own silence.
        """
        was_healthy = True
        while self.watchdog_s is not None and self._sender is not None:
            is_well = is_healthy()
            if not is_well:
                await asyncio.sleep(min(LOOK_AGAIN_S, self.watchdog_s / 4))
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

    def _send(self, text: str, *, is_owed: bool = False) -> bool:
        if self._sender is None:
            return False
        queue = [*self._owed, text]
        while queue:
            try:
                # sdnotify encodes latin-1, which gives these bytes back unchanged: UTF-8 on the wire
                self._sender.notify(queue[0].encode("utf-8", "replace").decode("latin-1"))
            except OSError:
                break
            del queue[0]
        self._owed = queue if is_owed else [kept for kept in queue if kept in self._owed]
        return not queue


def _line(text: str) -> str:
    return " ".join(text.split())


def listen_fds(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd passed to this process, close-on-exec; none when none are ours.

    The variables are taken out of `environ`: a child would believe them.  ValueError when a descriptor
    that was passed is no socket.
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
            raise ValueError(f"descriptor {fd}, passed by systemd, is no socket: {error.strerror}") from error
    return passed
