"""A connection that comes back: what outlives a restart of the daemon talks through this.

Only questions that may be asked twice go through `insist`; a submit never does, since a lost reply does
not mean a lost run (its key lets `client` ask again).
"""

import select
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.errors import Draining, TimedOut, Unavailable

BACKOFF_FIRST_S = 0.05
BACKOFF_MOST_S = 1.0
#: A restart that takes less is not worth a word.
QUIET_S = 0.3

T = TypeVar("T")


class Link:
    """A `client` and how to get another one; `generation` counts them."""

    def __init__(self, client: Client, option: str | None) -> None:
        self.client = client
        self.generation = 1
        # The same daemon, not merely any: a user daemon's runs are not the system daemon's.
        self._path = client.path or option

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def reconnect(self, deadline: float | None = None) -> None:
        """Return with a new connection; says so on stderr when it takes long; TimedOut at the deadline."""
        wake_fd = self.client.wake_fd
        self.client.close()
        begun, is_told = time.monotonic(), False
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MOST_S)
        while True:
            try:
                self.client = connect(self._path)
                # A dying daemon may still take a connection: only an answer counts.
                self.client.call("daemon.hello", {"client": "mosaicctl"})
                break
            except (NoDaemon, Disconnected) as error:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    raise TimedOut("no daemon answered within the time limit") from error
                if not is_told and now - begun >= QUIET_S:
                    is_told = True
                    _say("no daemon answers; waiting for it (Ctrl-C exits; runs continue)")
            _pause(backoff.next_s(), wake_fd)
        self.client.wake_fd = wake_fd
        self.generation += 1
        _say("reconnected to the daemon")

    def insist(self, ask: Callable[[], T], deadline: float | None = None) -> T:
        """Return what `ask` returns, asking again on a new connection each time the daemon went away."""
        while True:
            try:
                return ask()
            except Disconnected:
                self.reconnect(deadline)
            except (Unavailable, Draining):
                # It is up but not ready yet, or about to leave.
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                _pause(BACKOFF_MOST_S / 4, self.client.wake_fd)


def _pause(seconds: float, wake_fd: int | None) -> None:
    """Wait; KeyboardInterrupt when a signal speaks through `wake_fd` (nothing is left to ask the daemon)."""
    if wake_fd is None:
        time.sleep(seconds)
    elif select.select([wake_fd], [], [], seconds)[0]:
        raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stderr.write(f"mosaicctl: {text}\n")
    sys.stderr.flush()
