"""The notifications to shims: stop, pause and resume the run.

A shim that is not connected misses them; when it registers, it gets the one that its run is owed.
"""

from mosaicd.core.deadlines import grace_s
from mosaicd.core.fsm import Action
from mosaicd.core.run import Run
from mosaicd.protocol.records.control import PauseParams, StopParams
from mosaicd.shims.shims import Shims

#: The actions that are carried out by a notification alone.
NOTIFIED = frozenset({Action.STOP, Action.PAUSE, Action.RESUME})


class ShimControl:
    """Send control notifications to shims."""

    def __init__(self, shims: Shims) -> None:
        self._shims = shims

    def send(self, action: Action, run: Run) -> None:
        """Send the notification of an action that is one of NOTIFIED."""
        match action:
            case Action.STOP:
                self.send_stop(run)
            case Action.PAUSE:
                self._shims.notify(run.run_id, "control.pause", PauseParams(mode=run.pause_mode).to_json())
            case Action.RESUME:
                self.send_resume(run)

    def send_stop(self, run: Run) -> None:
        """Have the shim stop the process tree, because of a request or a fault."""
        stop = run.stop or run.fault or {}
        params = StopParams(
            kind=stop.get("kind"), who=stop.get("who", "daemon"), reason=stop.get("reason"),
            grace_s=grace_s(run), signal=stop.get("signal"),
        )  # fmt: skip
        self._shims.notify(run.run_id, "control.stop", params.to_json())

    def send_resume(self, run: Run) -> None:
        """Have the shim let a paused process tree continue."""
        self._shims.notify(run.run_id, "control.resume", {})
