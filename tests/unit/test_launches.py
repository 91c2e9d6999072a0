"""Launch orders that fail: which are tried again, how often, and what is said of them."""

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply
from mosaicd.core.launch import LaunchFailed, NoProcess, refused
from mosaicd.core.run import Run
from mosaicd.dispatch.launches import FIRST_PAUSE_S, LAUNCH_TRIES, MOST_PAUSE_S, Launches
from mosaicd.protocol.records.packets import ForkFailed
from tests.unit.lives import happening, run_in

NONE_LEFT = "Resource temporarily unavailable"


class Bench:
    """Launches over a launcher that answers what it is told to; `refusal`: what keeps a directory away."""

    def __init__(self, answers: Sequence[Exception | None], refusal: OSError | None) -> None:
        self._answers = list(answers)
        self._refusal = refusal
        self.pauses: list[float] = []
        self.launches = Launches(self, Orders(), self, self._later)  # type: ignore[arg-type]

    def _later(self, run_id: str, delay_s: float) -> None:
        self.pauses.append(delay_s)

    async def launch(self, order: dict[str, Any]) -> None:
        error = self._answers.pop(0) if self._answers else None
        if error is not None:
            raise error

    def refusal(self, run_id: str) -> OSError | None:
        return self._refusal


class Orders:
    """Stands for what reads spec and environment."""

    def launch(self, run: Run) -> dict[str, Any]:
        return {"run_id": run.run_id}


def bench(*answers: Exception | None, refusal: OSError | None = None) -> Bench:
    return Bench(answers, refusal)


RUN = run_in(Place.HSHK)


async def test_a_passing_refusal_is_tried_again_with_growing_pauses() -> None:
    """Each pause is twice the last, up to a bound; how often, and why, can be read until a fork works."""
    some = bench(*[NoProcess(NONE_LEFT)] * 8)
    for count in range(1, 9):
        assert await some.launches.order(RUN) is None
        assert some.launches.fork_error(RUN) == (
            f"the shim cannot be started: {NONE_LEFT}; tried {count} time{'' if count == 1 else 's'}"
        )
    assert some.pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert some.pauses[-1] == MOST_PAUSE_S
    assert await some.launches.order(RUN) is None
    assert some.launches.fork_error(RUN) is None and len(some.pauses) == 8


async def test_what_does_not_pass_is_the_end() -> None:
    """A launcher that cannot, files that are not whole, shims that leave no trace: evidence at once."""
    some = bench(LaunchFailed("not an order"))
    assert await some.launches.order(RUN) == {"error": "not an order"}
    some = bench(ValueError("spec.json is not whole"))
    assert await some.launches.order(RUN) == {"error": "spec.json is not whole"}
    some = bench()
    for _ in range(LAUNCH_TRIES):
        assert await some.launches.order(RUN) is None
    evidence = await some.launches.order(RUN)
    assert evidence is not None and f"{LAUNCH_TRIES} shims" in evidence["error"]
    some = bench(LaunchFailed("died"), refusal=OSError(errno.ENOSPC, "No space left"))
    assert (await some.launches.order(RUN) or {})["cause"] == "disk_full"
    assert some.pauses == []


async def test_our_own_want_of_descriptors_passes_too() -> None:
    """What the daemon itself lacks for a moment is no fault of the run either."""
    some = bench(OSError(errno.EMFILE, "Too many open files"))
    assert await some.launches.order(RUN) is None
    assert "Too many open files" in str(some.launches.fork_error(RUN))


async def test_who_is_to_stop_does_not_wait_for_a_process() -> None:
    """A shim would only be told to stop: without one, the refusal is the evidence at once."""
    some = bench(NoProcess(NONE_LEFT))
    stopped = apply(RUN, happening(Kind.STOP_REQUESTED))
    assert await some.launches.order(stopped) == {"error": NONE_LEFT}
    assert some.pauses == []


async def test_an_attempt_begins_without_the_trouble_of_the_last() -> None:
    """Tries and trouble are an attempt's, and nothing is kept of a run that ended."""
    some = bench(NoProcess(NONE_LEFT))
    await some.launches.order(RUN)
    second = apply(run_in(Place.RELEASED), happening(Kind.DISPATCHED, attempt=2))
    assert some.launches.fork_error(second) is None
    some.launches.forget(RUN.run_id)
    assert some.launches.fork_error(RUN) is None


@pytest.mark.parametrize(
    ("number", "is_passing"),
    [(errno.EAGAIN, True), (errno.ENOMEM, True), (errno.ENFILE, True), (errno.ENOSYS, False), (None, False)],
)
def test_which_refusals_pass(number: int | None, is_passing: bool) -> None:
    """By the number that the fork gave, which the launcher hands on; another refusal has none."""
    error = refused(ForkFailed(id=1, error="why", errno=number))
    assert (isinstance(error, NoProcess), str(error)) == (is_passing, "why")
