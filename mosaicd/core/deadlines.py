"""The deadline of a run, in monotonic seconds; pure, so that a simulation can use it.

A sign of life (any output) restarts the deadline of the heartbeat; only a further step or episode restarts
the deadline of `stall_s`.

Every state in which the daemon waits for a process has a deadline.  Waits that the user decides (the duration
of a command, the end of a pause) have none.

Deadlines restart when the state or the want of a run changes, and when its shim registers (`since_mono`).  A
paused run that stays paused has none.  Their clock stops while the machine is suspended, so a suspend causes
no fault.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

from mosaicd.core.event import Event, Kind
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.backoff import delay_s
from mosaicd.protocol.states import CauseKind, PauseMode, State, Want


@dataclass(frozen=True, slots=True)
class Deadline:
    """A deadline: the cause of a miss, its time (monotonic seconds), its length (seconds) and its reason.

    If `cause` is None, a miss is no fault: the daemon gives up the request, and the run continues.
    """

    cause: CauseKind | None
    due_mono: float
    after_s: float
    reason: str | None = None


#: The subject of a deadline: another state, attempt or request has another deadline.
DeadlineSubject = tuple[State, int, Want, bool]


def deadline_subject(run: Run) -> DeadlineSubject:
    """Return the subject of the deadline of `run`."""
    return run.state, run.attempt, run.want, run.pause_mode is PauseMode.RELEASE


#: The shim gives up first and reports the reason; the daemon decides only if no shim does.
HANDSHAKE_MARGIN_S = 2.0


def deadline(
    run: Run, since_mono: float, beat_mono: float, unkillable_s: float = 10.0, pause_ack_s: float = 10.0, *,
    moved_mono: float = -inf,
) -> Deadline | None:  # fmt: skip
    """Return the deadline that `run` is under, or None.

    `since_mono`: the time of the last change of state or want, or of the last register; `beat_mono`: the last
    sign of life; `moved_mono`: the last change of the counts; `unkillable_s`: the time after the grace period
    until a run counts as unkillable; `pause_ack_s`: the time that its worker has to answer a pause.

    A waiting run, a paused run that should stay paused, and a run whose worker has exited have no deadline:
    `dispatch.tree_teardown` checks the rest of its process tree again and again.
    """
    if run.exit is not None or not run.is_holding:
        return None
    answer_s = pause_ack_s + unkillable_s
    match run.state:
        case State.RDY | State.EXEC | State.PAUSE if run.want is Want.STOP:
            return _end_deadline(run, since_mono, unkillable_s)
        case State.EXEC | State.PAUSE if run.want is Want.PAUSE and run.pause_mode is PauseMode.RELEASE:
            return _end_deadline(run, since_mono, unkillable_s)
        case State.HSHK:
            limit = run.handshake_timeout_s
            return Deadline(CauseKind.HANDSHAKE_TIMEOUT, since_mono + limit + HANDSHAKE_MARGIN_S, limit)
        case State.RDY:
            limit = run.handshake_timeout_s if run.start_timeout_s is None else run.start_timeout_s
            return Deadline(CauseKind.START_TIMEOUT, since_mono + limit, limit)
        case State.EXEC if run.want is Want.PAUSE:
            return Deadline(
                None, since_mono + answer_s, answer_s, f"the run did not pause within {answer_s:g} s"
            )
        case State.EXEC:
            return _work_deadline(run, max(since_mono, beat_mono), max(since_mono, moved_mono))
        case State.PAUSE if run.want is Want.RUN:
            why = f"the shim did not resume the run within {answer_s:g} s"
            return Deadline(CauseKind.SHIM_LOST, since_mono + answer_s, answer_s, why)
        case _:
            return None


def _end_deadline(run: Run, since_mono: float, unkillable_s: float) -> Deadline:
    """Return the deadline by which a run that is being stopped or released must have ended."""
    limit = grace_s(run) + unkillable_s
    return Deadline(CauseKind.UNKILLABLE, since_mono + limit, limit)


def _work_deadline(run: Run, beat_mono: float, moved_mono: float) -> Deadline | None:
    """Return the earlier of the deadlines for a heartbeat and for progress."""
    stall_s = run.stall_s if run.want is Want.RUN else None
    bounds = (
        (CauseKind.HEARTBEAT_LOST, beat_mono, run.heartbeat_timeout_s),
        (CauseKind.STUCK, moved_mono, stall_s),
    )
    deadlines = [Deadline(cause, last + limit, limit) for cause, last, limit in bounds if limit is not None]
    return min(deadlines, key=lambda item: item.due_mono, default=None)


def missed_event(missed: Deadline, at: float, launch_error: str | None, progress: Progress) -> Event:
    """Return the event that follows a missed deadline, with its evidence.

    The event is a fault, or the request to resume a run that could not be paused.  `launch_error` is the
    reason why the shim could not be forked, `progress` has the last counts of the worker.
    """
    why = {"reason": missed.reason} if missed.reason else {}
    if missed.cause is None:
        return Event(Kind.RESUME_REQUESTED, at, data=why)
    data: dict[str, Any] = {"kind": missed.cause, "after_s": missed.after_s, **why}
    if missed.cause is CauseKind.HANDSHAKE_TIMEOUT:
        data["error"] = launch_error or "its shim did not register"
    if missed.cause is CauseKind.STUCK:
        data |= {"steps": progress.steps, "episodes": progress.episodes}
    return Event(Kind.DEADLINE_MISSED, at, data=data)


def grace_s(run: Run) -> float:
    """Return the grace period of the run: that of its stop request, else its own."""
    requested = (run.stop or {}).get("grace_s")
    return run.grace_s if requested is None else float(requested)


def retry_delay_s(retries_used: int, first_s: float, most_s: float, jitter: float) -> float:
    """Return the wait before retry number `retries_used` + 1: a back-off with `jitter` in [0, 1)."""
    return delay_s(retries_used, first_s, most_s) * (0.75 + 0.5 * jitter)
