"""What the daemon tells a shim: the reply to worker.register, and the notifications control.*.

The shim trusts the daemon.  A shim may be older or newer than its daemon, so an absent key is None.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.records.record import Record

#: Orders in the reply to a register.
START, ATTACH, STOP = "start", "attach", "stop"


class Registered(Record):
    """The reply to worker.register: a token for this connection, what to do, and what is wanted now.

    `stop` is the stop or the fault of the run, with `kind`, `who`, `reason` and `grace_s` as far as known.
    """

    accepted_version: int | None = None
    session_token: str | None = None
    order: str | None = None
    want: str | None = None
    pause_mode: str | None = None
    grace_s: float | None = None
    stop: Json | None = None


class StopParams(Record):
    """control.stop: end the process tree, with KILL after `grace_s` seconds (None: the run's own)."""

    kind: str | None = None
    who: str | None = None
    reason: str | None = None
    grace_s: float | None = None


class PauseParams(Record):
    """control.pause: freeze the tree, have the worker pause itself, or have it save and leave (release)."""

    mode: str | None = None
