"""Calls and streams that outlive a restart of the daemon, however long it takes.

Note: only requests that may be sent twice go through `repeat_until_answered`.  A submit does not: if its
reply is lost, the run may exist (the key that `submission` sends lets `client` repeat it).
"""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mosaicctl.client import Client, Disconnected
from mosaicd.protocol.errors import Draining, Unavailable

#: A restart that takes less is not reported.
QUIET_S = 0.3
_NOT_READY_PAUSE_S = 0.25

T = TypeVar("T")


def reconnect(client: Client, deadline: float | None = None) -> None:
    """Connect to the same daemon again; report a long wait on standard error; TimedOut at the deadline."""
    begun, is_told = time.monotonic(), False

    def tell_once() -> None:
        nonlocal is_told
        if not is_told and time.monotonic() - begun >= QUIET_S:
            is_told = True
            _say("no daemon answers; waiting for it (Ctrl-C exits; runs continue)")

    client.reconnect(deadline, tell_once)
    _say("reconnected to the daemon")


def repeat_until_answered(client: Client, ask: Callable[[], T], deadline: float | None = None) -> T:
    """Return what `ask` returns; repeat it on a new connection each time the daemon goes away."""
    while True:
        try:
            return ask()
        except Disconnected:
            reconnect(client, deadline)
        except (Unavailable, Draining):  # the daemon is starting or stopping
            if deadline is not None and time.monotonic() >= deadline:
                raise
            client.pause(_NOT_READY_PAUSE_S)


def _say(text: str) -> None:
    sys.stderr.write(f"mosaicctl: {text}\n")
    sys.stderr.flush()
