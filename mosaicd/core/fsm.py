"""Run lifecycle: the legal events of each state, the next state, and the action that the daemon then owes the
run.

Rule 1: every transition is a row of TABLE.  If a rule does not fit into a row, the event must be split.  A
*place* is a state, with one exception: PAUSE without slots is the place RELEASED, because its legal events
differ.  On the wire both are PAUSE.

Rule 2: `apply` is a pure fold of one event; replaying the events of a run gives its row.  `owed` reads only
the run, never the event that led there.  So it may be called twice, or again after a crash, and recovery
needs no second program.

Rule 3: requests change `want`, never `state`.  A run that should pause and is not yet frozen is in EXEC with
want=pause.

Note: call `conclude` only after the launcher has confirmed that the process tree is empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from mosaicd.core.event import Event, Kind
from mosaicd.core.folds import FOLDS
from mosaicd.core.run import Run
from mosaicd.core.verdict import (
    is_clean,
    is_quick_death,
    is_release,
    is_retry_due,
    never_started_verdict,
    verdict,
)
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, State, Want

__all__ = [
    "TABLE", "Action", "CrashLoop", "Event", "IllegalTransition", "Kind", "Place", "apply", "broke_event",
    "conclude", "is_legal", "owed", "place", "replay", "submitted",
]  # fmt: skip

_INTERRUPTED = (CauseKind.SHIM_LOST, CauseKind.REBOOTED)


class Place(StrEnum):
    """A group of rows in the table: a state, with RELEASED apart from PAUSE."""

    INIT = "INIT"
    HSHK = "HSHK"
    RDY = "RDY"
    EXEC = "EXEC"
    PAUSE = "PAUSE"
    RELEASED = "RELEASED"
    FAULT = "FAULT"
    TERM = "TERM"

    @property
    def state(self) -> State:
        """The state that clients see."""
        return State.PAUSE if self is Place.RELEASED else State(self.value)


P, K = Place, Kind

#: (place, event) -> place.  All other pairs are illegal.  `submitted` creates a run and has no row.
TABLE: Mapping[Place, Mapping[Kind, Place]] = {
    P.INIT: {
        K.STOP_REQUESTED: P.INIT, K.RESUME_REQUESTED: P.INIT,
        K.HOLD: P.INIT, K.RELEASE: P.INIT, K.SET: P.INIT,
        K.DISPATCHED: P.HSHK, K.WITHDRAWN: P.TERM,
    },
    P.HSHK: {
        K.STOP_REQUESTED: P.HSHK, K.PAUSE_REQUESTED: P.HSHK, K.RESUME_REQUESTED: P.HSHK, K.SET: P.HSHK,
        K.REGISTERED: P.RDY, K.LIMIT_REACHED: P.HSHK, K.EXITED: P.HSHK, K.FINISHED: P.TERM, K.BROKE: P.FAULT,
        K.SPAWN_FAILED: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT, K.UNKILLABLE: P.HSHK,
    },
    P.RDY: {
        K.STOP_REQUESTED: P.RDY, K.PAUSE_REQUESTED: P.RDY, K.RESUME_REQUESTED: P.RDY, K.SET: P.RDY,
        K.SPAWNED: P.RDY, K.STARTED: P.EXEC, K.LIMIT_REACHED: P.RDY, K.EXITED: P.RDY,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT,
        K.SPAWN_FAILED: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT, K.UNKILLABLE: P.RDY,
    },
    P.EXEC: {
        K.STOP_REQUESTED: P.EXEC, K.PAUSE_REQUESTED: P.EXEC, K.RESUME_REQUESTED: P.EXEC, K.SET: P.EXEC,
        K.PAUSED: P.PAUSE, K.RELEASED: P.RELEASED, K.LIMIT_REACHED: P.EXEC, K.EXITED: P.EXEC,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT,
        K.UNKILLABLE: P.EXEC,
    },
    P.PAUSE: {
        K.STOP_REQUESTED: P.PAUSE, K.PAUSE_REQUESTED: P.PAUSE, K.RESUME_REQUESTED: P.PAUSE, K.SET: P.PAUSE,
        K.CONTINUED: P.EXEC, K.RELEASED: P.RELEASED, K.LIMIT_REACHED: P.PAUSE, K.EXITED: P.PAUSE,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT,
        K.UNKILLABLE: P.PAUSE,
    },
    P.RELEASED: {
        K.STOP_REQUESTED: P.RELEASED, K.PAUSE_REQUESTED: P.RELEASED, K.RESUME_REQUESTED: P.RELEASED,
        K.HOLD: P.RELEASED, K.RELEASE: P.RELEASED, K.SET: P.RELEASED,
        K.DISPATCHED: P.HSHK, K.WITHDRAWN: P.TERM,
    },
    P.FAULT: {
        K.STOP_REQUESTED: P.FAULT, K.SET: P.FAULT,
        K.EXITED: P.FAULT, K.LOST: P.FAULT, K.UNKILLABLE: P.FAULT,
        K.REQUEUED: P.INIT, K.GAVE_UP: P.TERM,
    },
    P.TERM: {},
}  # fmt: skip


class IllegalTransition(Exception):
    """The event has no row for the place of the run; nothing was changed."""

    def __init__(self, run: Run, event: Event) -> None:
        super().__init__(f"{event.kind} is not legal in {place(run)} (run {run.run_id})")
        self.run = run
        self.event = event


class Action(StrEnum):
    """An action that the daemon owes a run; its parameters are in the run."""

    WITHDRAW = "withdraw"
    QUEUE = "queue"
    LAUNCH = "launch"
    BREAK = "break"  # record `broke`: the attempt has failed, and the run enters FAULT
    EMPTY_TREE = "empty_tree"  # have the process tree ended, then conclude the attempt
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"


def place(run: Run) -> Place:
    """Return the place of `run` in the table."""
    if run.state is State.PAUSE and run.released:
        return Place.RELEASED
    return Place(run.state.value)


def is_legal(run: Run, kind: Kind) -> bool:
    """Return whether `kind` has a row for the place of `run`."""
    return kind in TABLE[place(run)]


def submitted(event: Event) -> Run:
    """Return the new run that a `submitted` event carries in `data["run"]`."""
    return replace(Run.from_dict(event.data["run"]), rev=1)


def apply(run: Run, event: Event) -> Run:
    """Return the run after `event`, one revision on; raise IllegalTransition if TABLE has no row for it."""
    target = TABLE[place(run)].get(event.kind)
    if target is None:
        raise IllegalTransition(run, event)
    fold = FOLDS.get(event.kind)
    changes = fold(run, event) if fold else {}
    return replace(run, state=target.state, released=target is Place.RELEASED, rev=run.rev + 1, **changes)


def owed(run: Run) -> Action | None:
    """Return the action that the daemon owes `run`, or None; reads only the run."""
    match run.state:
        case State.TERM:
            return None
        case State.FAULT:
            return Action.EMPTY_TREE
        case State.INIT:
            return Action.WITHDRAW if run.want is Want.STOP else Action.QUEUE
        case State.PAUSE if run.released:
            return _owed_released(run)
        case _ if run.exit is not None:
            return Action.EMPTY_TREE if is_clean(run) or is_release(run) else Action.BREAK
        case State.HSHK:
            return Action.LAUNCH
        case _ if run.want is Want.STOP:
            return Action.STOP
        case State.EXEC if run.want is Want.PAUSE:
            return Action.PAUSE
        case State.PAUSE if run.want is Want.RUN:
            return Action.RESUME
        case State.PAUSE if run.pause_mode is PauseMode.RELEASE:
            return Action.PAUSE
        case _:
            return None


def _owed_released(run: Run) -> Action | None:
    if run.want is Want.STOP:
        return Action.WITHDRAW
    return Action.QUEUE if run.want is Want.RUN else None


def broke_event(run: Run, at: float) -> Event:
    """Return the `broke` event of a run that failed and was not stopped."""
    return Event(Kind.BROKE, at, data={"cause": verdict(run)[1] or {}})


@dataclass(frozen=True, slots=True)
class CrashLoop:
    """After `attempts` in a row that lasted less than `within_s`, a run is not retried; 0: no limit."""

    attempts: int = 0
    within_s: float = 0.0


def conclude(run: Run, at: float, backoff_s: float, crash_loop: CrashLoop | None = None) -> Event:
    """Return the event that ends or requeues `run`, whose process tree is empty.

    `backoff_s` is the wait before a retry.  Raises ValueError if no end is due.
    """
    stopped = never_started_verdict(run)
    if stopped is not None:
        kind = Kind.GAVE_UP if run.state is State.FAULT else Kind.FINISHED
        return Event(kind, at, data={"outcome": stopped[0], "cause": stopped[1]})
    if run.state is State.FAULT:
        cause = dict(run.fault or {})
        bound = crash_loop or CrashLoop()
        is_quick = is_quick_death(run, at, bound.within_s)
        is_loop = is_quick and 0 < bound.attempts <= run.quick_deaths + 1
        if is_retry_due(run) and not is_loop:
            data = {"not_before": at + backoff_s, "cause": cause, "quick": is_quick, **_left(run)}
            return Event(Kind.REQUEUED, at, data=data)
        if is_retry_due(run):
            cause |= {"crash_loop": True, "attempts": run.quick_deaths + 1}
        outcome = Outcome.INTERRUPTED if cause.get("kind") in _INTERRUPTED else Outcome.FAILED
        return Event(Kind.GAVE_UP, at, data={"outcome": outcome, "cause": cause, **_left(run)})
    if run.exit is None:
        raise ValueError(f"run {run.run_id} has not exited")
    if is_release(run):
        return Event(Kind.RELEASED, at)
    outcome, cause_ = verdict(run)
    return Event(Kind.FINISHED, at, data={"outcome": outcome, "cause": cause_, **_left(run)})


def _left(run: Run) -> dict[str, int]:
    """Return the number of processes that the program left behind, for the event of its end; {} if none."""
    count = (run.exit or {}).get("left_processes")
    return {"left_processes": count} if count else {}


def replay(events: list[Event]) -> Run:
    """Return the run after `events` (in order, the first is `submitted`); raise IllegalTransition
    otherwise."""
    run = submitted(events[0])
    for event in events[1:]:
        run = apply(run, event)
    return run
