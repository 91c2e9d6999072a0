"""Messages from the daemon to a shim: the reply to worker.register, and the notifications control.*.

The shim trusts the daemon.  Shim and daemon may have different versions, so an absent key is None.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.records.record import Record
from mosaicd.protocol.signals import StopSignal

#: Orders in the reply to a register.
START, ATTACH, STOP = "start", "attach", "stop"


class Registered(Record):
    """The reply to worker.register: a session token, an order, and the present want of the run.

    `stop` is the stop or the fault of the run: `kind`, `who`, `reason`, `grace_s`, `signal`; unknown ones are
    absent.
    """

    accepted_version: int | None = None
    session_token: str | None = None
    order: str | None = None
    want: str | None = None
    pause_mode: str | None = None
    grace_s: float | None = None
    stop: Json | None = None


class StopParams(Record):
    """control.stop: end the process tree: `signal`, KILL after `grace_s` seconds (None: those of the run)."""

    kind: str | None = None
    who: str | None = None
    reason: str | None = None
    grace_s: float | None = None
    signal: StopSignal | None = None


class PauseParams(Record):
    """control.pause: freeze the process tree, or let the worker pause itself, or let it save and exit."""

    mode: str | None = None
