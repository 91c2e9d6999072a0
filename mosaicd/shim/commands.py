"""Commands of the daemon to a shim: the reply to worker.register and the notifications control.*, decoded."""

from typing import NamedTuple

from mosaicd.protocol import Json
from mosaicd.shim.ending import BegunStop

START, STOP, PAUSE, RELEASE, RESUME = "start", "stop", "pause", "release", "resume"


class Command(NamedTuple):
    """One thing to do, and its parameters as the daemon sent them."""

    name: str
    params: Json


def from_notification(name: str, params: Json) -> Command | None:
    """Return the command of the notification control.`name`; None for an unknown name."""
    if name == PAUSE and params.get("mode") == RELEASE:
        return Command(RELEASE, {})
    return Command(name, params) if name in (STOP, PAUSE, RESUME) else None


def from_reply(reply: Json, *, is_started: bool, has_ended: bool, paused_mode: str | None) -> Command | None:
    """Return what the reply to a register asks of an attempt in this state; None if nothing."""
    order, want = reply.get("order"), reply.get("want")
    if order == "stop" or (order == "attach" and want == "stop"):
        stop = reply.get("stop")
        return Command(STOP, {"grace_s": reply.get("grace_s"), **(stop if isinstance(stop, dict) else {})})
    if has_ended or order not in ("start", "attach"):
        return None
    if not is_started:
        return Command(START, {}) if order == "start" else None
    if want == "pause" and paused_mode is None:
        return from_notification(PAUSE, {"mode": reply.get("pause_mode")})
    if want == "run" and paused_mode is not None:
        return Command(RESUME, {})
    return None


def stop_of(params: Json, default_grace_s: float) -> BegunStop:
    """Return the stop that the parameters of a command ask for; it begins now."""
    asked = params.get("grace_s")
    grace_s = float(asked) if isinstance(asked, int | float) else default_grace_s
    kind = str(params.get("kind") or "by_user")
    return BegunStop(kind, params.get("who"), params.get("reason"), max(0.0, grace_s))
