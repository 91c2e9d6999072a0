"""The invariants that hold after every step."""

from collections.abc import Iterable, Sequence

from mosaicd.core.run import Run
from mosaicd.protocol.states import Outcome
from tests.simulation.peers import Attempt


class BrokenInvariant(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, what: str) -> None:
    """Raise BrokenInvariant with the text `what` unless `holds`."""
    if not holds:
        raise BrokenInvariant(what)


def check_tree(run: Run, attempts: Iterable[Attempt]) -> None:
    """Check that only the attempt that holds the slots of a run has living processes."""
    alive = {a.number for a in attempts if a.run_id == run.run_id and not a.is_empty}
    allowed = {run.attempt} if run.is_holding else set()
    require(alive <= allowed, f"{run.run_id} is {run.state} and attempts {alive} still have processes")


def check_order(started: Run, waiting: Iterable[Run], submitted: Sequence[str]) -> None:
    """Check that no run starts while an earlier submit of the same owner, priority and size waits."""
    earlier = frozenset(submitted[: submitted.index(started.run_id)])
    overtaken = [run.run_id for run in waiting if run.run_id in earlier and _rank(run) == _rank(started)]
    require(not overtaken, f"{started.run_id} starts before {overtaken}, which were submitted earlier")


def _rank(run: Run) -> tuple[int, int, int, int]:
    return run.owner_uid, run.priority, run.cpus, run.gpus


def check_end(run: Run, attempt: Attempt | None, *, stopped_early: bool) -> None:
    """Check that the outcome of a run follows from its exit code, unless the run was stopped or lost.

    A run that was stopped before its worker started must be cancelled.
    """
    is_cancelled = run.outcome is Outcome.CANCELLED
    require(is_cancelled or not stopped_early, f"{run.run_id} was stopped early, and ended {run.cause}")
    exit = attempt.exit if attempt is not None else None
    if exit is None or exit["stop"] is not None or exit["released"] or run.fault is not None:
        return
    clean = exit["exit_code"] == 0
    require((run.outcome is Outcome.SUCCEEDED) == clean, f"{run.run_id} ended {run.outcome} with {exit}")
