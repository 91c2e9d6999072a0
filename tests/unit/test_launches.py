"""Launch orders that fail: which are retried, after which delay, and the evidence of a final failure."""

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply
from mosaicd.core.launch import LaunchFailed, NoProcess, fork_error
from mosaicd.core.run import Run
from mosaicd.core.spec import InvalidSpec
from mosaicd.dispatch.launches import FIRST_PAUSE_S, LAUNCH_TRIES, MOST_PAUSE_S, Launches
from mosaicd.protocol.records.packets import ForkFailed
from tests.unit.lifecycle import make_event, run_in

NONE_LEFT = "Resource temporarily unavailable"


class Bench:
    """Launches with a fake launcher that gives these answers; `refusal`: why no run directory can be made."""

    def __init__(self, answers: Sequence[Exception | None], refusal: OSError | None) -> None:
        self._answers = list(answers)
        self._refusal = refusal
        self.pauses: list[float] = []
        self.launches = Launches(self, FakeOrderBuilder(), self, self._later)  # type: ignore[arg-type]

    def _later(self, run_id: str, delay_s: float) -> None:
        self.pauses.append(delay_s)

    async def launch(self, order: dict[str, Any]) -> None:
        error = self._answers.pop(0) if self._answers else None
        if error is not None:
            raise error

    def probe_attempt_dir(self, run_id: str) -> OSError | None:
        return self._refusal


class FakeOrderBuilder:
    """Build orders without the files of a run."""

    def launch_order(self, run: Run) -> dict[str, Any]:
        return {"run_id": run.run_id}


def bench(*answers: Exception | None, refusal: OSError | None = None) -> Bench:
    return Bench(answers, refusal)


RUN = run_in(Place.HSHK)


async def test_a_temporary_fork_error_is_retried_with_growing_delays() -> None:
    """Delays double up to a bound; error and count of tries are reported until a fork succeeds."""
    case = bench(*[NoProcess(NONE_LEFT)] * 8)
    for count in range(1, 9):
        assert await case.launches.order(RUN) is None
        assert case.launches.fork_error(RUN) == (
            f"the shim cannot be started: {NONE_LEFT}; tried {count} time{'' if count == 1 else 's'}"
        )
    assert case.pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert case.pauses[-1] == MOST_PAUSE_S
    assert await case.launches.order(RUN) is None
    assert case.launches.fork_error(RUN) is None and len(case.pauses) == 8


async def test_a_permanent_launch_error_becomes_evidence_at_once() -> None:
    """A refused order, an incomplete spec and shims that leave no trace are not retried."""
    case = bench(LaunchFailed("not an order"))
    assert await case.launches.order(RUN) == {"error": "not an order"}
    case = bench(InvalidSpec("spec.json is incomplete"))
    assert await case.launches.order(RUN) == {"error": "spec.json is incomplete"}
    case = bench()
    for _ in range(LAUNCH_TRIES):
        assert await case.launches.order(RUN) is None
    evidence = await case.launches.order(RUN)
    assert evidence is not None and f"{LAUNCH_TRIES} shims" in evidence["error"]
    case = bench(LaunchFailed("died"), refusal=OSError(errno.ENOSPC, "No space left"))
    assert (await case.launches.order(RUN) or {})["cause"] == "disk_full"
    assert case.pauses == []


async def test_a_lack_of_descriptors_in_the_daemon_is_retried() -> None:
    """EMFILE in the daemon is temporary and no fault of the run."""
    case = bench(OSError(errno.EMFILE, "Too many open files"))
    assert await case.launches.order(RUN) is None
    assert "Too many open files" in str(case.launches.fork_error(RUN))


async def test_a_launch_of_a_run_that_is_to_stop_is_not_retried() -> None:
    """If the run is to stop, the fork error is the evidence at once."""
    case = bench(NoProcess(NONE_LEFT))
    stopped = apply(RUN, make_event(Kind.STOP_REQUESTED))
    assert await case.launches.order(stopped) == {"error": NONE_LEFT}
    assert case.pauses == []


async def test_a_new_attempt_starts_without_fork_errors() -> None:
    """Fork errors belong to one attempt, and are dropped when the run is forgotten."""
    case = bench(NoProcess(NONE_LEFT))
    await case.launches.order(RUN)
    second = apply(run_in(Place.RELEASED), make_event(Kind.DISPATCHED, attempt=2))
    assert case.launches.fork_error(second) is None
    case.launches.forget(RUN.run_id)
    assert case.launches.fork_error(RUN) is None


@pytest.mark.parametrize(
    ("number", "is_temporary"),
    [(errno.EAGAIN, True), (errno.ENOMEM, True), (errno.ENFILE, True), (errno.ENOSYS, False), (None, False)],
)
def test_the_errno_decides_whether_a_fork_error_is_temporary(number: int | None, is_temporary: bool) -> None:
    """The launcher sends the errno of a failed fork; a refusal without an errno is permanent."""
    error = fork_error(ForkFailed(id=1, error="why", errno=number))
    assert (isinstance(error, NoProcess), str(error)) == (is_temporary, "why")
