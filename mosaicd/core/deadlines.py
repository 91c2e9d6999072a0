"""Which deadline a run stands under, in monotonic seconds; pure, so that a simulation can run it.

Living is not moving: a beat (any output) pushes the heartbeat's deadline back, only a further step or episode
that of a run that has a `stall_s`.

Every state in which the daemon waits for somebody has one, so that nobody is waited for without end; what a
run's own user decides (how long a command works, when a paused run goes on) is no such wait.

Deadlines start anew when the daemon attaches and when a run thaws (`since_mono`), never run in PAUSE,
and use a clock that stops with the machine: a suspended laptop faults nobody.
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
    """The cause that a miss has, when it is due (monotonic seconds), how long it was (seconds), and of what.

    No cause: nothing broke, only the wish is given up, and the run goes on.
    """

    cause: CauseKind | None
    due_mono: float
    after_s: float
    reason: str | None = None


#: What a deadline is about: with another state, attempt or wish it is another one.
Standing = tuple[State, int, Want, bool]


def standing(run: Run) -> Standing:
    """Return what a deadline of `run` is about now."""
    return run.state, run.attempt, run.want, run.pause_mode is PauseMode.RELEASE


#: The shim gives up first and says why; the daemon only speaks where no shim does.
HANDSHAKE_MARGIN_S = 2.0


def deadline(
    run: Run, since_mono: float, beat_mono: float, unkillable_s: float = 10.0, pause_ack_s: float = 10.0, *,
    moved_mono: float = -inf,
) -> Deadline | None:  # fmt: skip
    """Return the deadline that `run` is under, or None.

    `since_mono`: when it entered its state, was asked for something else, or was attached; `beat_mono`: its
    last sign of life; `moved_mono`: when its counts last changed; `unkillable_s`: how long after its grace a
    run that is to leave may still be there; `pause_ack_s`: how long its worker has to answer a pause.

    None for who waits in the queue, for a paused run that is to stay so, and where an end is known: what is
    left of a tree is looked at again and again, and called unkillable (see `dispatcher`).
    """
    if run.exit is not None or not run.is_holding:
        return None
    answer_s = pause_ack_s + unkillable_s
    match run.state:
        case State.RDY | State.EXEC | State.PAUSE if run.want is Want.STOP:
            return _left(run, since_mono, unkillable_s)
        case State.EXEC | State.PAUSE if run.want is Want.PAUSE and run.pause_mode is PauseMode.RELEASE:
            return _left(run, since_mono, unkillable_s)
        case State.HSHK:
            limit = run.handshake_timeout_s
            return Deadline(CauseKind.HANDSHAKE_TIMEOUT, since_mono + limit + HANDSHAKE_MARGIN_S, limit)
        case State.RDY:
            limit = run.handshake_timeout_s if run.start_timeout_s is None else run.start_timeout_s
            return Deadline(CauseKind.START_TIMEOUT, since_mono + limit, limit)
        case State.EXEC if run.want is Want.PAUSE:
            return Deadline(None, since_mono + answer_s, answer_s, f"it was not paused within {answer_s:g} s")
        case State.EXEC:
            return _of_work(run, max(since_mono, beat_mono), max(since_mono, moved_mono))
        case State.PAUSE if run.want is Want.RUN:
            why = f"its shim did not let it go on within {answer_s:g} s"
            return Deadline(CauseKind.SHIM_LOST, since_mono + answer_s, answer_s, why)
        case _:
            return None


def _left(run: Run, since_mono: float, unkillable_s: float) -> Deadline:
    """Return by when a run that is to stop, or to leave its slots, must have ended."""
    limit = grace_s(run) + unkillable_s
    return Deadline(CauseKind.UNKILLABLE, since_mono + limit, limit)


def _of_work(run: Run, beat_mono: float, moved_mono: float) -> Deadline | None:
    """Return what comes first: silence for too long, or standing still for too long unasked."""
    stall_s = run.stall_s if run.want is Want.RUN else None
    bounds = (
        (CauseKind.HEARTBEAT_LOST, beat_mono, run.heartbeat_timeout_s),
        (CauseKind.STUCK, moved_mono, stall_s),
    )
    found = [Deadline(cause, last + limit, limit) for cause, last, limit in bounds if limit is not None]
    return min(found, key=lambda one: one.due_mono, default=None)


def missed_event(missed: Deadline, at: float, launch_error: str | None, progress: Progress) -> Event:
    """Return the event that follows a missed deadline, with its evidence.

    A fault; or, where nothing broke, the request to resume a run that could not be paused.  `launch_error`
    is what kept its shim from being forked, `progress` the last counts of its worker.
    """
    why = {"reason": missed.reason} if missed.reason else {}
    if missed.cause is None:
        return Event(Kind.RESUME_REQUESTED, at, data=why)
    data: dict[str, Any] = {"kind": missed.cause, "after_s": missed.after_s, **why}
    if missed.cause is CauseKind.HANDSHAKE_TIMEOUT:
        data["error"] = launch_error or "its shim never came"
    if missed.cause is CauseKind.STUCK:
        data |= {"steps": progress.steps, "episodes": progress.episodes}
    return Event(Kind.DEADLINE_MISSED, at, data=data)


def grace_s(run: Run) -> float:
    """Return how long the run has from TERM to KILL: what its stop says, else its own."""
    asked = (run.stop or {}).get("grace_s")
    return run.grace_s if asked is None else float(asked)


def retry_delay_s(retries_used: int, first_s: float, most_s: float, jitter: float) -> float:
    """Return how long retry number `retries_used` + 1 waits: a back-off, spread by jitter in [0, 1)."""
    return delay_s(retries_used, first_s, most_s) * (0.75 + 0.5 * jitter)
