"""What a run directory tells of a run that no registry knows: from its files to the events of a ledger.

The events are those that would have been recorded, folded by the same table, so that whoever reads them
later can tell a rebuilt run from another by `WHO` alone.  What is left open here (a living shim, an end
whose tree nobody has looked at, a retry that is due) is left to start-up, which asks the same files anyway.
A reader would get wrong: the environment of a run is removed when the run is final, so its absence is the
one sure sign that a run that had retries left was not to be tried again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mosaicd.core import catchup, evidence
from mosaicd.core.fsm import Action, Event, Kind, apply, breaking, conclude, owed, submitted
from mosaicd.core.run import Run
from mosaicd.core.verdict import verdict
from mosaicd.protocol.states import CauseKind, PauseMode, State, Want

WHO = "rebuild"
_WHY_STOPPED = "it was over before it ran; the registry that knew why is lost"

Steps = list[tuple[Run, Event]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The files of one attempt.  `is_held`: its shim lives."""

    number: int
    launch: Mapping[str, Any] | None = None
    started: Mapping[str, Any] | None = None
    exit: Mapping[str, Any] | None = None
    is_held: bool = False


def recollect(
    born: Run, attempts: Sequence[Attempt], *, is_over: bool, over_at: float, boot_id: str
) -> Steps:
    """Return each event with the run after it; IllegalTransition or ValueError where the files make no sense.

    `is_over`: the run had reached TERM, at `over_at` where nothing says it better.
    """
    first = Event(Kind.SUBMITTED, born.created_at, born.owner, {"run": born.to_dict()})
    steps: Steps = [(submitted(first), first)]
    begun = [attempt for attempt in sorted(attempts, key=lambda a: a.number) if attempt.launch is not None]
    for attempt in begun:
        is_last = attempt is begun[-1]
        _begin(steps, attempt)
        if attempt.is_held:
            break
        if not is_last or is_over:
            _end(steps, attempt, over_at, boot_id, is_last=is_last)
        elif attempt.exit is not None and attempt.exit.get("released"):
            _fold(steps, Event(Kind.PAUSE_REQUESTED, _at(attempt), WHO, {"mode": PauseMode.RELEASE}))
    if is_over and not steps[-1][0].is_final:
        _withdraw(steps, over_at)
    return steps


def _fold(steps: Steps, *events: Event) -> Run:
    for event in events:
        steps.append((apply(steps[-1][0], event), event))
    return steps[-1][0]


def _begin(steps: Steps, attempt: Attempt) -> None:
    """Add what an attempt came to, up to its exit record."""
    run, launch = steps[-1][0], attempt.launch or {}
    if run.released and run.want is not Want.RUN:
        run = _fold(steps, Event(Kind.RESUME_REQUESTED, _at(attempt), WHO))
    at = evidence.seconds(launch.get("at")) or run.created_at
    nonce = evidence.text(launch.get("nonce"))
    if nonce is None:
        raise ValueError(f"launch.json of attempt {attempt.number} has no nonce")
    data = {
        "attempt": attempt.number, "nonce": nonce, "slots": _numbers(launch.get("slots")),
        "cpus": _number(launch.get("cpus")) or run.cpus,
    }  # fmt: skip
    run = _fold(steps, Event(Kind.DISPATCHED, at, WHO, data))
    if attempt.started is None and attempt.exit is None:
        return
    names = {"shim_pid": "shim_pid", "shim_start_ticks": "shim_started_at"}
    shim = {ours: _number(launch.get(theirs)) for ours, theirs in names.items()}
    run = _fold(steps, Event(Kind.REGISTERED, at, WHO, shim))
    status = catchup.status_from_files(run.kind, attempt.started, attempt.exit)
    _fold(steps, *catchup.from_status(run, status, at, WHO))


def _end(steps: Steps, attempt: Attempt, over_at: float, boot_id: str, *, is_last: bool) -> None:
    """Add the end of an attempt: the run's own, or what led to the next attempt."""
    run = steps[-1][0]
    if run.exit is None and run.state is not State.FAULT:
        boot = (attempt.started or {}).get("boot_id")
        kind = CauseKind.REBOOTED if boot is not None and boot != boot_id else CauseKind.SHIM_LOST
        run = _fold(steps, Event(Kind.LOST, over_at, WHO, {"kind": kind}))
    at = _at(attempt) or over_at
    if owed(run) is Action.BREAK:
        run = _fold(steps, replace(breaking(run, at), who=WHO))
    if is_last:
        spent = replace(run, retries=run.retries_used)  # it was over: no other attempt was due
        _fold(steps, replace(conclude(spent, at, 0.0), who=WHO))
        return
    event = replace(conclude(run, at, 0.0), who=WHO)
    if event.kind is not Kind.RELEASED:
        cause = dict(run.fault or verdict(run)[1] or {"kind": CauseKind.SHIM_LOST})
        if run.state is not State.FAULT:
            _fold(steps, Event(Kind.BROKE, at, WHO, {"cause": cause}))
        event = Event(Kind.REQUEUED, at, WHO, {"not_before": at, "cause": cause})
    _fold(steps, event)


def _withdraw(steps: Steps, at: float) -> None:
    _fold(steps, Event(Kind.STOP_REQUESTED, at, WHO, {"reason": _WHY_STOPPED}))
    _fold(steps, Event(Kind.WITHDRAWN, at, WHO))


def _at(attempt: Attempt) -> float:
    told = (attempt.exit or {}).get("finished_at"), (attempt.launch or {}).get("at")
    return next((at for at in map(evidence.seconds, told) if at is not None), 0.0)


def _number(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= evidence.MOST_COUNT
    return value if is_one else None


def _numbers(value: Any) -> list[int]:
    found = value if isinstance(value, list) else []
    return [number for number in map(_number, found) if number is not None]
