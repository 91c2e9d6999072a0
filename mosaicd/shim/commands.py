"""Commands of the daemon to a shim: the reply to worker.register and the notifications control.*, decoded."""

from typing import NamedTuple

from mosaicd.protocol import Json
from mosaicd.protocol.records import control
from mosaicd.protocol.records.control import PauseParams, Registered, StopParams
from mosaicd.shim.ending import BegunStop
from mosaicd.shim.pause import FREEZE

START, STOP, PAUSE, RELEASE, RESUME = "start", "stop", "pause", "release", "resume"


class Command(NamedTuple):
    """A command of the daemon, with the parameters of a stop or the mode of a pause."""

    name: str
    stop: StopParams = StopParams()
    pause_mode: str = FREEZE

    def begin_stop(self, default_grace_s: float) -> BegunStop:
        """Return the stop, which begins now; `default_grace_s` applies if the daemon sent no grace period."""
        stop = self.stop
        grace_s = default_grace_s if stop.grace_s is None else float(stop.grace_s)
        return BegunStop(stop.kind or "by_user", stop.who, stop.reason, max(0.0, grace_s), stop.signal)


def from_notification(name: str, params: Json) -> Command | None:
    """Return the command of the notification control.`name`; None for an unknown name."""
    if name == STOP:
        return Command(STOP, stop=StopParams.from_json(params))
    if name == PAUSE:
        return _pause(PauseParams.from_json(params).mode)
    return Command(RESUME) if name == RESUME else None


def from_reply(
    reply: Registered, *, is_started: bool, has_ended: bool, paused_mode: str | None
) -> Command | None:
    """Return the command in the reply to worker.register, given the state of the attempt, or None."""
    if reply.order == control.STOP or (reply.order == control.ATTACH and reply.want == "stop"):
        stop = {"grace_s": reply.grace_s, **(reply.stop or {})}
        return Command(STOP, stop=StopParams.from_json(stop))
    if has_ended or reply.order not in (control.START, control.ATTACH):
        return None
    if not is_started:
        return Command(START) if reply.order == control.START else None
    if reply.want == "pause" and paused_mode is None:
        return _pause(reply.pause_mode)
    if reply.want == "run" and paused_mode is not None:
        return Command(RESUME)
    return None


def _pause(mode: str | None) -> Command:
    return Command(RELEASE) if mode == RELEASE else Command(PAUSE, pause_mode=mode or FREEZE)
