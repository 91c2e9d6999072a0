"""Launch orders: repeat an order whose shim left no trace, and retry a fork that failed temporarily.

A fork fails temporarily if the machine has no free process, memory or descriptor.  That is no fault of the
run, so the order is retried with a back-off until the handshake timeout, and the reason of the run says so.
Every other failure fails the attempt.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from mosaicd import log
from mosaicd.core.launch import TEMPORARY_ERRORS, LaunchFailed, NoProcess
from mosaicd.core.run import Run
from mosaicd.core.spec import InvalidSpec
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.states import CauseKind, Want
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.shims import Shims

#: After this many launch orders whose shims wrote no launch.json the attempt fails.
LAUNCH_TRIES = 3
FIRST_PAUSE_S = 0.1
MOST_PAUSE_S = 2.0


@dataclass(slots=True)
class _Launch:
    """The orders of one attempt: its forks, the failed forks since the last one, and why they failed."""

    attempt: int
    forks: int = 0
    refusals: int = 0
    fork_error: str | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_S, MOST_PAUSE_S))


class Launches:
    """Tell the launcher to fork the shims of runs; `retry_later(run_id, delay_s)` repeats `order` later."""

    def __init__(
        self,
        shims: Shims,
        order_builder: OrderBuilder,
        rundirs: RunDirs,
        retry_later: Callable[[str, float], object],
    ) -> None:
        self._shims = shims
        self._order_builder = order_builder
        self._rundirs = rundirs
        self._retry_later = retry_later
        self._launches: dict[str, _Launch] = {}  # by run id

    async def order(self, run: Run) -> Json | None:
        """Have the launcher fork a shim; return the evidence of a final failure, None otherwise."""
        launch = self._launch_of(run) or _Launch(run.attempt)
        self._launches[run.run_id] = launch
        try:
            if launch.forks == LAUNCH_TRIES:
                raise LaunchFailed(f"{LAUNCH_TRIES} shims ended without writing launch.json")
            await self._shims.launch(self._order_builder.launch_order(run))
            launch.forks += 1
            launch.refusals, launch.fork_error = 0, None
            launch.backoff.reset()
        except (LaunchFailed, OSError, InvalidSpec) as error:
            is_temporary = isinstance(error, NoProcess) or getattr(error, "errno", None) in TEMPORARY_ERRORS
            if is_temporary and run.want is not Want.STOP:  # a stopped run needs no shim
                self._delay(run, launch, error)
                return None
            log.event(Catalogue.LAUNCH_FAILED, run_id=run.run_id, attempt=run.attempt, why=error)
            return self._evidence(run, error)
        return None

    def fork_error(self, run: Run) -> str | None:
        """Return why the run's shim cannot be forked at the moment, or None."""
        launch = self._launch_of(run)
        return launch.fork_error if launch is not None else None

    def forget(self, run_id: str) -> None:
        """Drop the orders of a run that has ended."""
        self._launches.pop(run_id, None)

    def _launch_of(self, run: Run) -> _Launch | None:
        launch = self._launches.get(run.run_id)
        return launch if launch is not None and launch.attempt == run.attempt else None

    def _delay(self, run: Run, launch: _Launch, error: Exception) -> None:
        launch.refusals += 1
        count = f"{launch.refusals} time{'' if launch.refusals == 1 else 's'}"
        launch.fork_error = f"the shim cannot be started: {error}; tried {count}"
        if launch.refusals == 1:
            log.event(Catalogue.LAUNCH_DELAYED, run_id=run.run_id, attempt=run.attempt, why=error)
        self._retry_later(run.run_id, launch.backoff.next_s())

    def _evidence(self, run: Run, error: Exception) -> Json:
        """Return the error of a failed launch, and the error of the attempt's directory, if it has one."""
        refusal = self._rundirs.probe_attempt_dir(run.run_id) if isinstance(error, LaunchFailed) else error
        if not isinstance(refusal, OSError):
            return {"error": str(error)}
        cause = {"cause": CauseKind.DISK_FULL} if refusal.errno in (errno.ENOSPC, errno.EDQUOT) else {}
        return {"error": f"{error}: {refusal}" if refusal is not error else str(error), **cause}
