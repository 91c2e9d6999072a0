"""Replay of a run directory: from the files of a run to the events that the registry lacks.

`replay` is for a run without a row, `catch_up` for a row that is older than its directory (the registry lost
its newest commits, or an older copy was restored).  The events are those that would have been recorded,
folded by the same table; `WHO` marks them.  A living shim, an end whose process tree the launcher has not
checked, and a retry that is due are left open: reconcile reads the same files at each start.

Note: the environment of a run is removed when the run is final.  Its absence is the only sure sign that a run
with retries left was not to be tried again.
Note: GPU slots are given to another run only when the process tree is empty.  So if another run began on
them later, the attempt that had them was over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mosaicd.core import dead_shim, missed_events
from mosaicd.core.fsm import Action, Event, Kind, apply, broke_event, conclude, owed, submitted
from mosaicd.core.run import Run
from mosaicd.core.verdict import is_release, verdict
from mosaicd.protocol.records.attempt import Launch
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.states import CauseKind, PauseMode, State, Want

WHO = "rebuild"
_WHY_STOPPED = "it ended before it started; the reason was only in the lost registry"

Steps = list[tuple[Run, Event]]


@dataclass(frozen=True, slots=True)
class RunDirFacts:
    """Facts of a run directory that are not in the files of its attempts.

    `is_over`: the run had reached TERM.  `over_at`: the time of events for which the files have no time.
    `has_lost_slots`: the slots of its newest attempt were given to another run later.
    """

    over_at: float
    boot_id: str
    is_over: bool = False
    has_lost_slots: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The GPU slots that a run held from the time `at` on."""

    run_id: str
    slots: tuple[int, ...]
    at: float


def newest_claim(run_id: str, attempts: Sequence[AttemptFiles]) -> Claim | None:
    """Return the slots of the newest attempt that began, from its launch.json; None if no attempt began."""
    begun = [attempt for attempt in attempts if attempt.launch is not None]
    if not begun:
        return None
    launch = max(begun, key=lambda attempt: attempt.number).launch or Launch()
    return Claim(run_id, launch.slots, launch.at or 0.0)


def runs_that_lost_slots(claims: Sequence[Claim]) -> frozenset[str]:
    """Return the ids of the runs of which another run claims a slot from a later time on."""
    newest: dict[int, Claim] = {}
    for one in sorted(claims, key=lambda one: one.at):
        newest |= dict.fromkeys(one.slots, one)
    return frozenset(one.run_id for one in claims if any(newest[slot].at > one.at for slot in one.slots))


def replay(new_run: Run, attempts: Sequence[AttemptFiles], facts: RunDirFacts) -> Steps:
    """Return each event of a run without a row, with the run after it.

    Raises IllegalTransition or ValueError for files that contradict each other.
    """
    first = Event(Kind.SUBMITTED, new_run.created_at, new_run.owner, {"run": new_run.to_dict()})
    steps: Steps = [(submitted(first), first)]
    _add_attempts(steps, attempts, facts)
    return steps


def catch_up(run: Run, attempts: Sequence[AttemptFiles], facts: RunDirFacts) -> Steps:
    """Return the events that the row of a live run lacks, each with the run after it; [] if it lacks none.

    The row is behind when a later attempt has begun, or when the run is over, has lost its slots, or has
    released them.  Reconcile finds all other missing events.  Raises as `replay` does.
    """
    later = [attempt for attempt in attempts if attempt.number > run.attempt and attempt.launch is not None]
    present = next((a for a in attempts if a.number == run.attempt), AttemptFiles(run.attempt))
    has_lost_slots = facts.has_lost_slots and run.is_holding and not present.is_held
    is_ended = bool(later) or facts.is_over or has_lost_slots
    steps: Steps = [(run, Event(Kind.SUBMITTED, run.created_at))]  # the start of the fold; not returned
    if run.is_holding and (is_ended or (present.exit is not None and present.exit.released)):
        _add_begun(steps, present, _at(present) or facts.over_at)
        _add_release(steps, present, facts)
    if not is_ended:
        return steps[1:]
    if run.is_holding:
        _add_end(steps, present, facts, is_last=not later)
    _add_attempts(steps, later, facts)
    return steps[1:]


def _add_attempts(steps: Steps, attempts: Sequence[AttemptFiles], facts: RunDirFacts) -> None:
    """Add attempt after attempt, and the end of the run where it is over."""
    begun = [attempt for attempt in sorted(attempts, key=lambda a: a.number) if attempt.launch is not None]
    for attempt in begun:
        is_last = attempt is begun[-1]
        _add_attempt(steps, attempt)
        if attempt.is_held and is_last:  # an earlier attempt has an empty tree, even if its shim lives
            break
        _add_release(steps, attempt, facts)
        if not is_last or facts.is_over or facts.has_lost_slots:
            _add_end(steps, attempt, facts, is_last=is_last)
    if facts.is_over and not steps[-1][0].is_final:
        _add_withdrawal(steps, facts.over_at)


def _fold(steps: Steps, *events: Event) -> Run:
    """Append the events to `steps`, and return the run after them."""
    for event in events:
        steps.append((apply(steps[-1][0], event), event))
    return steps[-1][0]


def _add_release(steps: Steps, attempt: AttemptFiles, facts: RunDirFacts) -> None:
    """Add the pause request that made the worker release its slots; the run waits until it is resumed."""
    run = steps[-1][0]
    if is_release(run) and run.want is Want.RUN and not facts.is_over:
        _fold(steps, Event(Kind.PAUSE_REQUESTED, _at(attempt), WHO, {"mode": PauseMode.RELEASE}))


def _add_attempt(steps: Steps, attempt: AttemptFiles) -> None:
    """Add the dispatch of an attempt and its events, up to its exit record."""
    run, launch = steps[-1][0], attempt.launch or Launch()
    if run.released and run.want is not Want.RUN:
        run = _fold(steps, Event(Kind.RESUME_REQUESTED, _at(attempt), WHO))
    at = launch.at or run.created_at
    if launch.nonce is None:
        raise ValueError(f"launch.json of attempt {attempt.number} has no nonce")
    data = {
        "attempt": attempt.number, "nonce": launch.nonce, "slots": list(launch.slots),
        "cpus": launch.cpus or run.cpus,
    }  # fmt: skip
    if run.held:
        _fold(steps, Event(Kind.RELEASE, at, WHO))
    _fold(steps, Event(Kind.DISPATCHED, at, WHO, data))
    _add_begun(steps, attempt, at)


def _add_begun(steps: Steps, attempt: AttemptFiles, at: float) -> None:
    """Add the events of an attempt that was dispatched, up to its exit record."""
    run, launch = steps[-1][0], attempt.launch or Launch()
    if attempt.started is None and attempt.exit is None:
        return
    if run.state is State.HSHK:
        shim = {"shim_pid": launch.shim_pid, "shim_start_ticks": launch.shim_started_at}
        run = _fold(steps, Event(Kind.REGISTERED, at, WHO, shim))
    status = missed_events.status_from_files(run.kind, attempt.started, attempt.exit)
    _fold(steps, *missed_events.from_status(run, status, at, WHO))


def _add_end(steps: Steps, attempt: AttemptFiles, facts: RunDirFacts, *, is_last: bool) -> None:
    """Add the end of an attempt: the end of the run, or the events before the next attempt."""
    left = dead_shim.events_of(steps[-1][0], attempt, facts.boot_id, facts.over_at)
    run = _fold(steps, *(replace(event, who=WHO) for event in left))
    at = _at(attempt) or facts.over_at
    if owed(run) is Action.BREAK:
        run = _fold(steps, replace(broke_event(run, at), who=WHO))
    if is_last and facts.is_over:
        run = replace(run, retries=run.retries_used)  # the run had ended, so no retry was due
    event = replace(conclude(run, at, 0.0), who=WHO)
    if not is_last and event.kind is not Kind.RELEASED:
        cause = dict(run.fault or verdict(run)[1] or {"kind": CauseKind.SHIM_LOST})
        if run.state is not State.FAULT:
            _fold(steps, Event(Kind.BROKE, at, WHO, {"cause": cause}))
        event = Event(Kind.REQUEUED, at, WHO, {"not_before": at, "cause": cause})
    _fold(steps, event)


def _add_withdrawal(steps: Steps, at: float) -> None:
    if steps[-1][0].want is not Want.STOP:
        _fold(steps, Event(Kind.STOP_REQUESTED, at, WHO, {"reason": _WHY_STOPPED}))
    _fold(steps, Event(Kind.WITHDRAWN, at, WHO))


def _at(attempt: AttemptFiles) -> float:
    finished_at = attempt.exit.finished_at if attempt.exit is not None else None
    began_at = attempt.launch.at if attempt.launch is not None else None
    return next((at for at in (finished_at, began_at) if at is not None), 0.0)
