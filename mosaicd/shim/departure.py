"""The departure of a shim: write exit.json, then wait for the daemon's answer, then leave.

A shim leaves when the process tree is empty, exit.json is settled, and the daemon has acknowledged all facts.
If the daemon does not answer, the shim leaves after a while: all that the daemon needs is in the files.
exit.json is settled if it is on the disk, or if its directory was removed and it can never be written.  Any
other error, such as a full disk, is temporary: the shim tries again until it succeeds.
"""

from mosaicd import crash_points
from mosaicd.catalogue import Catalogue
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt import Exit
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.shim import operator_log
from mosaicd.shim.attempt_dir import AttemptDir
from mosaicd.shim.dialogue import Dialogue
from mosaicd.shim.link import Link

_RETRY_S = 1.0  # between two tries to write exit.json, for example on a full disk
_DAEMON_AWAY_S = 2.0  # the shim leaves after this time without a connection
_ANSWER_WAIT_S = 30.0  # the shim leaves after this time without an acknowledgement
_CHECK_S = 1.0  # between two checks that the attempt directory exists


class Departure:
    """The conditions under which one shim leaves."""

    def __init__(self, order: LaunchOrder, attempt_dir: AttemptDir, link: Link, dialogue: Dialogue) -> None:
        self._order = order
        self._attempt_dir = attempt_dir
        self._link = link
        self._dialogue = dialogue
        self._exit: Exit | None = None
        self._ended_at = 0.0
        self._retry_at: float | None = None
        self._check_at = 0.0
        self._is_written = False
        self._is_dir_removed = False
        self._is_due = False

    @property
    def is_due(self) -> bool:
        """Return whether the shim leaves now."""
        return self._is_due

    @property
    def is_settled(self) -> bool:
        """Return whether exit.json is on the disk, or can never be written."""
        return self._is_written or (self._exit is not None and self._is_dir_removed)

    def leave(self) -> None:
        """Have the shim leave now."""
        self._is_due = True

    def write_exit(self, exit: Exit, now: float) -> None:
        """Write exit.json; if that fails, `tick` tries again."""
        self._exit, self._ended_at = exit, now
        self._try_write(now)

    def next_at(self, *, is_emptied: bool) -> float | None:
        """Return when `tick` is due, or None; `is_emptied`: the process tree is empty."""
        moments = [self._retry_at, self._leave_at() if is_emptied else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, now: float, *, is_emptied: bool) -> None:
        """Check the attempt directory, try again to write exit.json, or leave, if that is due."""
        if now >= self._check_at and not self._is_written:
            self._check_at = now + _CHECK_S
            self._check_dir()
        if self._retry_at is not None and now >= self._retry_at:
            self._try_write(now)
        if not is_emptied or not self.is_settled:
            return
        is_acknowledged = self._dialogue.is_accepted and not self._dialogue.has_unacknowledged_facts
        leave_at = self._leave_at()
        if is_acknowledged or (leave_at is not None and now >= leave_at):
            self.leave()

    def _try_write(self, now: float) -> None:
        assert self._exit is not None
        self._retry_at = None
        try:
            self._attempt_dir.write_durably(rundir.EXIT, self._exit.to_json())
        except OSError:
            self._check_dir()
            if not self._is_dir_removed:  # meanwhile the daemon has the same record from the fact `exited`
                self._retry_at = now + _RETRY_S
            return
        self._is_written = True
        crash_points.reach("shim.exit_written")

    def _check_dir(self) -> None:
        """Check whether the attempt directory was removed; log that once."""
        if self._is_dir_removed or not self._attempt_dir.is_removed():
            return
        self._is_dir_removed = True
        operator_log.event(
            Catalogue.RUN_DIR_REMOVED, path=self._attempt_dir.path,
            run_id=self._order.run_id, attempt=self._order.attempt,
        )  # fmt: skip

    def _leave_at(self) -> float | None:
        """Return when to leave without the daemon's answer; None while exit.json is not settled."""
        if not self.is_settled:
            return None
        down_since = self._link.down_since
        if down_since is not None:
            return max(self._ended_at, down_since) + _DAEMON_AWAY_S
        return self._ended_at + _ANSWER_WAIT_S
