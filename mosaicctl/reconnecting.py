"""Reconnecting calls: they wait until a restarted daemon answers again, without a time limit by default.

Note: use `repeat_until_answered` only for requests that may be sent twice.  Not for a submit: if its reply is
lost, the run may exist.  `submission` sends a key with a submit, and then `client` may repeat it.
"""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mosaicctl.client import Client, Disconnected
from mosaicd.protocol.errors import Draining, Unavailable

#: A shorter wait for the daemon is not reported.
QUIET_S = 0.3
_NOT_READY_PAUSE_S = 0.25

T = TypeVar("T")


def reconnect(client: Client, deadline: float | None = None) -> None:
    """Connect to the same socket again; report a long wait on standard error; TimedOut at `deadline`."""
    began_mono, is_reported = time.monotonic(), False

    def report_once() -> None:
        nonlocal is_reported
        if not is_reported and time.monotonic() - began_mono >= QUIET_S:
            is_reported = True
            _print_message("no daemon answers; waiting for it (Ctrl-C exits; runs continue)")

    client.reconnect(deadline, report_once)
    _print_message("reconnected to the daemon")


def repeat_until_answered(client: Client, call: Callable[[], T], deadline: float | None = None) -> T:
    """Return the result of `call`; repeat it on a new connection each time the daemon disconnects."""
    while True:
        try:
            return call()
        except Disconnected:
            reconnect(client, deadline)
        except (Unavailable, Draining):  # the daemon is starting or stopping
            if deadline is not None and time.monotonic() >= deadline:
                raise
            client.sleep(_NOT_READY_PAUSE_S)


def _print_message(text: str) -> None:
    sys.stderr.write(f"mosaicctl: {text}\n")
    sys.stderr.flush()
