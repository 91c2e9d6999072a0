"""What a run directory tells of a run that no registry knows: from its files to the events of a ledger.

Two cases: `recollect` for a run that no row knows, `catch_up` for a row that is older than its directory (a
registry that lost its newest commits, or an older copy that was restored).  The events are those that would
have been recorded, folded by the same table, so that whoever reads them later can tell a rebuilt run from
another by `WHO` alone.  What is left open here (a living shim, an end whose tree nobody has looked at, a
retry that is due) is left to start-up, which asks the same files anyway.  A reader would get wrong: the
environment of a run is removed when the run is final, so its absence is the one sure sign that a run that had
retries left was not to be tried again.  And GPU slots are given away only when a tree is empty: where another
run began on them since, the attempt that had them was over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mosaicd.core import dead_shim, evidence, missed_events
from mosaicd.core.fsm import Action, Event, Kind, apply, breaking, conclude, owed, submitted
from mosaicd.core.run import Run
from mosaicd.core.verdict import is_release, verdict
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.states import CauseKind, PauseMode, State, Want

WHO = "rebuild"
_WHY_STOPPED = "it was over before it ran; the registry that knew why is lost"

Steps = list[tuple[Run, Event]]


@dataclass(frozen=True, slots=True)
class Look:
    """What is known besides the attempts.

    `is_over`: the run had reached TERM, at `over_at` where nothing says it better.  `is_vacated`: what its
    newest attempt held was another's since.  `is_behind`: the registry is known to lack its newest commits.
    """

    over_at: float
    boot_id: str
    is_over: bool = False
    is_vacated: bool = False
    is_behind: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """GPU slots that a run had from a time on."""

    run_id: str
    slots: tuple[int, ...]
    at: float


def claim(run_id: str, attempts: Sequence[AttemptFiles]) -> Claim | None:
    """Return what the newest attempt that began says it was given."""
    begun = [attempt for attempt in attempts if attempt.launch is not None]
    if not begun:
        return None
    launch = max(begun, key=lambda attempt: attempt.number).launch or {}
    return Claim(run_id, tuple(_numbers(launch.get("slots"))), evidence.seconds(launch.get("at")) or 0.0)


def vacated(claims: Sequence[Claim]) -> frozenset[str]:
    """Return the runs of which a slot was claimed by another, later."""
    newest: dict[int, Claim] = {}
    for one in sorted(claims, key=lambda one: one.at):
        newest |= dict.fromkeys(one.slots, one)
    return frozenset(one.run_id for one in claims if any(newest[slot].at > one.at for slot in one.slots))


def recollect(born: Run, attempts: Sequence[AttemptFiles], look: Look) -> Steps:
    """Return each event with the run after it; IllegalTransition or ValueError for files without sense."""
    first = Event(Kind.SUBMITTED, born.created_at, born.owner, {"run": born.to_dict()})
    steps: Steps = [(submitted(first), first)]
    _go_on(steps, attempts, look)
    return steps


def catch_up(run: Run, attempts: Sequence[AttemptFiles], look: Look) -> Steps:
    """Return what a live run's row lacks where it is behind its directory; [] where reconcile sees to it.

    It is behind when an attempt after the row's has begun, and, where the registry is known to be, when the
    run is over, or vacated, or was released.  Raises as `recollect` does.
    """
    later = [attempt for attempt in attempts if attempt.number > run.attempt and attempt.launch is not None]
    present = next((a for a in attempts if a.number == run.attempt), AttemptFiles(run.attempt))
    is_vacated = look.is_vacated and run.is_holding and not present.is_held
    is_left = look.is_behind and (look.is_over or is_vacated)
    steps: Steps = [(run, Event(Kind.SUBMITTED, run.created_at))]  # only to fold on from; not returned
    is_released = look.is_behind and bool((present.exit or {}).get("released"))
    if run.is_holding and (later or is_left or is_released):
        _arrive(steps, present, _at(present) or look.over_at)
        _release(steps, present, look)
    if not later and not is_left:
        return steps[1:]
    if run.is_holding:
        _end(steps, present, look, is_last=not later)
    _go_on(steps, later, look)
    return steps[1:]


def _go_on(steps: Steps, attempts: Sequence[AttemptFiles], look: Look) -> None:
    """Add attempt after attempt, and the run's own end where it is over."""
    begun = [attempt for attempt in sorted(attempts, key=lambda a: a.number) if attempt.launch is not None]
    for attempt in begun:
        is_last = attempt is begun[-1]
        _begin(steps, attempt)
        if attempt.is_held and is_last:  # of one before it only the shim is left: its tree was empty
            break
        _release(steps, attempt, look)
        if not is_last or look.is_over or look.is_vacated:
            _end(steps, attempt, look, is_last=is_last)
    if look.is_over and not steps[-1][0].is_final:
        _withdraw(steps, look.over_at)


def _fold(steps: Steps, *events: Event) -> Run:
    for event in events:
        steps.append((apply(steps[-1][0], event), event))
    return steps[-1][0]


def _release(steps: Steps, attempt: AttemptFiles, look: Look) -> None:
    """Add what alone makes a worker leave its slots; it stays away until somebody resumes it."""
    run = steps[-1][0]
    if is_release(run) and run.want is Want.RUN and not look.is_over:
        _fold(steps, Event(Kind.PAUSE_REQUESTED, _at(attempt), WHO, {"mode": PauseMode.RELEASE}))


def _begin(steps: Steps, attempt: AttemptFiles) -> None:
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
    if run.held:
        _fold(steps, Event(Kind.RELEASE, at, WHO))
    _fold(steps, Event(Kind.DISPATCHED, at, WHO, data))
    _arrive(steps, attempt, at)


def _arrive(steps: Steps, attempt: AttemptFiles, at: float) -> None:
    """Add what an attempt that was dispatched came to, up to its exit record."""
    run, launch = steps[-1][0], attempt.launch or {}
    if attempt.started is None and attempt.exit is None:
        return
    if run.state is State.HSHK:
        names = {"shim_pid": "shim_pid", "shim_start_ticks": "shim_started_at"}
        shim = {ours: _number(launch.get(theirs)) for ours, theirs in names.items()}
        run = _fold(steps, Event(Kind.REGISTERED, at, WHO, shim))
    status = missed_events.status_from_files(run.kind, attempt.started, attempt.exit)
    _fold(steps, *missed_events.from_status(run, status, at, WHO))


def _end(steps: Steps, attempt: AttemptFiles, look: Look, *, is_last: bool) -> None:
    """Add the end of an attempt: the run's own, what led to the next attempt, or what would be concluded."""
    left = dead_shim.events_of(steps[-1][0], attempt, look.boot_id, look.over_at)
    run = _fold(steps, *(replace(event, who=WHO) for event in left))
    at = _at(attempt) or look.over_at
    if owed(run) is Action.BREAK:
        run = _fold(steps, replace(breaking(run, at), who=WHO))
    if is_last and look.is_over:
        run = replace(run, retries=run.retries_used)  # it was over: no other attempt was due
    event = replace(conclude(run, at, 0.0), who=WHO)
    if not is_last and event.kind is not Kind.RELEASED:
        cause = dict(run.fault or verdict(run)[1] or {"kind": CauseKind.SHIM_LOST})
        if run.state is not State.FAULT:
            _fold(steps, Event(Kind.BROKE, at, WHO, {"cause": cause}))
        event = Event(Kind.REQUEUED, at, WHO, {"not_before": at, "cause": cause})
    _fold(steps, event)


def _withdraw(steps: Steps, at: float) -> None:
    if steps[-1][0].want is not Want.STOP:
        _fold(steps, Event(Kind.STOP_REQUESTED, at, WHO, {"reason": _WHY_STOPPED}))
    _fold(steps, Event(Kind.WITHDRAWN, at, WHO))


def _at(attempt: AttemptFiles) -> float:
    told = (attempt.exit or {}).get("finished_at"), (attempt.launch or {}).get("at")
    return next((at for at in map(evidence.seconds, told) if at is not None), 0.0)


def _number(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= evidence.MOST_COUNT
    return value if is_one else None


def _numbers(value: Any) -> list[int]:
    found = value if isinstance(value, list) else []
    return [number for number in map(_number, found) if number is not None]
