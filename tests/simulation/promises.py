"""What must hold, whatever happened."""

from collections.abc import Iterable, Sequence

from mosaicd.core.run import Run
from mosaicd.protocol.states import Outcome
from tests.simulation.peers import Attempt


class BrokenPromise(AssertionError):
    """An invariant does not hold."""


def promise(holds: bool, what: str) -> None:
    """Raise BrokenPromise unless it holds."""
    if not holds:
        raise BrokenPromise(what)


def check_tree(run: Run, attempts: Iterable[Attempt]) -> None:
    """No process of a run lives but those of the attempt that holds its slots."""
    alive = {a.number for a in attempts if a.run_id == run.run_id and not a.is_empty}
    allowed = {run.attempt} if run.is_holding else set()
    promise(alive <= allowed, f"{run.run_id} is {run.state} and attempts {alive} still have processes")


def check_order(started: Run, waiting: Iterable[Run], submitted: Sequence[str]) -> None:
    """No run starts while another of its owner, priority and size waits that was submitted earlier."""
    earlier = frozenset(submitted[: submitted.index(started.run_id)])
    overtaken = [run.run_id for run in waiting if run.run_id in earlier and _rank(run) == _rank(started)]
    promise(not overtaken, f"{started.run_id} starts before {overtaken}, which were submitted earlier")


def _rank(run: Run) -> tuple[int, int, int, int]:
    return run.owner_uid, run.priority, run.cpus, run.gpus


def check_end(run: Run, attempt: Attempt | None, *, stopped_early: bool) -> None:
    """A run that ended by itself, and was neither stopped nor lost, ended as its process did.

    One that was stopped before anything started was cancelled, whoever did not come or act then.
    """
    is_cancelled = run.outcome is Outcome.CANCELLED
    promise(is_cancelled or not stopped_early, f"{run.run_id} was stopped early, and ended {run.cause}")
    exit = attempt.exit if attempt is not None else None
    if exit is None or exit["stop"] is not None or exit["released"] or run.fault is not None:
        return
    clean = exit["exit_code"] == 0
    promise((run.outcome is Outcome.SUCCEEDED) == clean, f"{run.run_id} ended {run.outcome} with {exit}")
