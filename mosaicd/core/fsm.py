"""Run lifecycle: which events are legal when, where they lead, and what the daemon then owes the run.

Three rules make it hold.

Rule 1: every transition is a row of TABLE.  A rule that does not fit in a row means that the event must
be split.  A *place* is a state, except that PAUSE with its slots given back is a place of its own
(RELEASED): the legal events differ, so the table must tell them apart; on the wire both are PAUSE.

Rule 2: fold, then owe.  `apply` is a pure fold of one event; replaying a run's events gives its row.
`owed` reads only the run, never the event that led there, so asking twice, or again after a crash,
is harmless, and recovery is not a second program.

Rule 3: observed is not wanted.  Requests change `want`, never `state`; "pause asked, not yet frozen" is
EXEC with want=pause.

Who may know that a process tree is empty is not decided here: `conclude` must be called only after the
launcher has confirmed it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, State, Want


class Place(StrEnum):
    """A row group of the table: a state, with RELEASED split off PAUSE."""

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


class Kind(StrEnum):
    """Event kinds; stored, never renamed."""

    SUBMITTED = "submitted"
    STOP_REQUESTED = "stop_requested"
    PAUSE_REQUESTED = "pause_requested"
    RESUME_REQUESTED = "resume_requested"
    HOLD = "hold"
    RELEASE = "release"
    SET = "set"
    DISPATCHED = "dispatched"
    REGISTERED = "registered"
    SPAWNED = "spawned"
    STARTED = "started"
    PAUSED = "paused"
    CONTINUED = "continued"
    RELEASED = "released"
    LIMIT_REACHED = "limit_reached"
    EXITED = "exited"
    FINISHED = "finished"
    BROKE = "broke"
    SPAWN_FAILED = "spawn_failed"
    DEADLINE_MISSED = "deadline_missed"
    LOST = "lost"
    UNKILLABLE = "unkillable"
    REQUEUED = "requeued"
    GAVE_UP = "gave_up"
    WITHDRAWN = "withdrawn"


P, K = Place, Kind

#: (place, event) -> place.  What is not here is illegal.  `submitted` makes a run and has no row.
TABLE: Mapping[Place, Mapping[Kind, Place]] = {
    P.INIT: {
        K.STOP_REQUESTED: P.INIT, K.RESUME_REQUESTED: P.INIT,
        K.HOLD: P.INIT, K.RELEASE: P.INIT, K.SET: P.INIT,
        K.DISPATCHED: P.HSHK, K.WITHDRAWN: P.TERM,
    },
    P.HSHK: {
        K.STOP_REQUESTED: P.HSHK, K.PAUSE_REQUESTED: P.HSHK, K.RESUME_REQUESTED: P.HSHK, K.SET: P.HSHK,
        K.REGISTERED: P.RDY, K.LIMIT_REACHED: P.HSHK, K.EXITED: P.HSHK, K.FINISHED: P.TERM, K.BROKE: P.FAULT,
        K.SPAWN_FAILED: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT,
    },
    P.RDY: {
        K.STOP_REQUESTED: P.RDY, K.PAUSE_REQUESTED: P.RDY, K.RESUME_REQUESTED: P.RDY, K.SET: P.RDY,
        K.SPAWNED: P.RDY, K.STARTED: P.EXEC, K.LIMIT_REACHED: P.RDY, K.EXITED: P.RDY,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT,
        K.SPAWN_FAILED: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT,
    },
    P.EXEC: {
        K.STOP_REQUESTED: P.EXEC, K.PAUSE_REQUESTED: P.EXEC, K.RESUME_REQUESTED: P.EXEC, K.SET: P.EXEC,
        K.PAUSED: P.PAUSE, K.RELEASED: P.RELEASED, K.LIMIT_REACHED: P.EXEC, K.EXITED: P.EXEC,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT, K.DEADLINE_MISSED: P.FAULT, K.LOST: P.FAULT,
    },
    P.PAUSE: {
        K.STOP_REQUESTED: P.PAUSE, K.PAUSE_REQUESTED: P.PAUSE, K.RESUME_REQUESTED: P.PAUSE, K.SET: P.PAUSE,
        K.CONTINUED: P.EXEC, K.RELEASED: P.RELEASED, K.LIMIT_REACHED: P.PAUSE, K.EXITED: P.PAUSE,
        K.FINISHED: P.TERM, K.BROKE: P.FAULT, K.LOST: P.FAULT,
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


@dataclass(frozen=True, slots=True)
class Event:
    """One fact or request.  `who` is a user name, or "daemon", "shim", "launcher"; `data` is JSON-safe."""

    kind: Kind
    at: float
    who: str = "daemon"
    data: Mapping[str, Any] = field(default_factory=dict)


class IllegalTransition(Exception):
    """The event has no row where the run stands; nothing was changed."""

    def __init__(self, run: Run, event: Event) -> None:
        super().__init__(f"{event.kind} is not legal in {place(run)} (run {run.run_id})")
        self.run = run
        self.event = event


class Action(StrEnum):
    """What the daemon owes a run; its parameters are in the run."""

    WITHDRAW = "withdraw"
    AWAIT_TURN = "await_turn"
    LAUNCH = "launch"
    BREAK = "break"
    EMPTY_TREE = "empty_tree"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"


def place(run: Run) -> Place:
    """Return the row group that `run` stands in."""
    if run.state is State.PAUSE and run.released:
        return Place.RELEASED
    return Place(run.state.value)


def is_legal(run: Run, kind: Kind) -> bool:
    """Whether `kind` has a row where `run` stands."""
    return kind in TABLE[place(run)]


def submitted(event: Event) -> Run:
    """Return the new run that a `submitted` event carries in `data["run"]`."""
    return replace(Run.from_dict(event.data["run"]), rev=1)


def apply(run: Run, event: Event) -> Run:
    """Return the run after `event`, one revision on; raise IllegalTransition and change nothing otherwise."""
    target = TABLE[place(run)].get(event.kind)
    if target is None:
        raise IllegalTransition(run, event)
    fold = _FOLDS.get(event.kind)
    changes = fold(run, event) if fold else {}
    return replace(run, state=target.state, released=target is Place.RELEASED, rev=run.rev + 1, **changes)


def owed(run: Run) -> Action | None:
    """Return what the daemon still has to do for `run`, or None; reads only the run."""
    match run.state:
        case State.TERM:
            return None
        case State.FAULT:
            return Action.EMPTY_TREE
        case State.INIT:
            return Action.WITHDRAW if run.want is Want.STOP else Action.AWAIT_TURN
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
        case _:
            return None


def _owed_released(run: Run) -> Action | None:
    if run.want is Want.STOP:
        return Action.WITHDRAW
    return Action.AWAIT_TURN if run.want is Want.RUN else None


# --- the end -------------------------------------------------------------------------------------


def is_release(run: Run) -> bool:
    """Whether the exit was the worker leaving its slots on request, to come back later."""
    return bool(run.exit and run.exit.get("released") and run.want is not Want.STOP)


def is_clean(run: Run) -> bool:
    """Whether the exit needs no FAULT: nothing bad in the evidence, or the end was wanted."""
    return run.want is Want.STOP or verdict(run)[0] is not Outcome.FAILED


def verdict(run: Run) -> tuple[Outcome, dict[str, Any] | None]:
    """Return outcome and cause that the exit record speaks for.

    Whose word decides (lifecycle.md): a stop or limit that the shim had begun before it reaped the
    leader; else a MOSAIC worker's own last word; else how the process ended.
    """
    exit = run.exit or {}
    evidence = {name: exit[name] for name in ("exit_code", "signal") if exit.get(name) is not None}
    if exit.get("core_dumped"):
        evidence["core_dumped"] = True
    stop = exit.get("stop")
    if stop:
        kind = CauseKind(stop["kind"])
        cause = {
            "kind": kind,
            **{n: stop[n] for n in ("who", "reason", "forced") if stop.get(n) is not None},
            **evidence,
        }
        return _STOPPED.get(kind, Outcome.FAILED), cause
    if exit.get("fault"):
        return Outcome.FAILED, {"kind": CauseKind(exit["fault"]), "error": exit.get("error"), **evidence}
    word = exit.get("last_word") if run.kind == "worker" else None
    if word == "run_failed":
        return Outcome.FAILED, {"kind": CauseKind.WORKER_FAILED, "error": exit.get("error"), **evidence}
    if word == "run_cancelled":
        return Outcome.CANCELLED, {"kind": CauseKind.BY_USER, "who": "worker", **evidence}
    bad = _bad_end(exit, evidence)
    if word == "run_completed":
        return Outcome.SUCCEEDED, bad
    return (Outcome.FAILED, bad) if bad else (Outcome.SUCCEEDED, None)


def _bad_end(exit: Mapping[str, Any], evidence: dict[str, Any]) -> dict[str, Any] | None:
    if exit.get("signal") is not None:
        return {"kind": CauseKind.SIGNAL, **evidence}
    if exit.get("exit_code"):
        return {"kind": CauseKind.EXIT_CODE, **evidence}
    return None


_STOPPED: Mapping[CauseKind, Outcome] = {
    CauseKind.BY_USER: Outcome.CANCELLED,
    CauseKind.TIME_LIMIT: Outcome.TIMEOUT,
    CauseKind.STEP_LIMIT: Outcome.SUCCEEDED,
    CauseKind.PREEMPTED: Outcome.INTERRUPTED,
}

_INTERRUPTED = (CauseKind.SHIM_LOST, CauseKind.REBOOTED)


def breaking(run: Run, at: float) -> Event:
    """Return the `broke` event of a run whose exit is bad and was not wanted."""
    return Event(Kind.BROKE, at, data={"cause": verdict(run)[1] or {}})


def conclude(run: Run, at: float, backoff_s: float) -> Event:
    """Return the event that ends or requeues `run`, whose tree the launcher has found empty.

    `backoff_s` is how long a retry has to wait.  Raises ValueError where no end is due.
    """
    if run.state is State.FAULT:
        cause = dict(run.fault or {})
        if is_retry_due(run):
            return Event(Kind.REQUEUED, at, data={"not_before": at + backoff_s, "cause": cause})
        outcome = Outcome.INTERRUPTED if cause.get("kind") in _INTERRUPTED else Outcome.FAILED
        return Event(Kind.GAVE_UP, at, data={"outcome": outcome, "cause": cause})
    if run.exit is None:
        raise ValueError(f"run {run.run_id} has not exited")
    if is_release(run):
        return Event(Kind.RELEASED, at)
    outcome, cause_ = verdict(run)
    return Event(Kind.FINISHED, at, data={"outcome": outcome, "cause": cause_})


def is_retry_due(run: Run) -> bool:
    """Whether a faulted run is to be queued again: attempts left, a cause that is retried, no stop wanted."""
    kind = (run.fault or {}).get("kind")
    return run.want is not Want.STOP and run.retries_used < run.retries and kind in run.retry_on


# --- folds: what each event stores -----------------------------------------------------------------


def _stop_requested(run: Run, event: Event) -> dict[str, Any]:
    return {
        "want": Want.STOP,
        "stop": {"kind": CauseKind.BY_USER, "who": event.who, **event.data},
        "pause_mode": None,
    }


def _pause_requested(run: Run, event: Event) -> dict[str, Any]:
    mode = event.data.get("mode")
    return {"want": Want.PAUSE, "pause_mode": PauseMode(mode) if mode else None}


def _resume_requested(run: Run, event: Event) -> dict[str, Any]:
    return {"want": Want.RUN, "pause_mode": None, "held": False if run.state is State.INIT else run.held}


def _set(run: Run, event: Event) -> dict[str, Any]:
    return {name: event.data[name] for name in ("priority", "labels", "name") if name in event.data}


def _dispatched(run: Run, event: Event) -> dict[str, Any]:
    data = event.data
    return {
        "attempt": data["attempt"], "nonce": data["nonce"], "slots": tuple(data["slots"]),
        "cpus_granted": data["cpus"], "gpus_granted": len(data["slots"]),
        "dispatched_at": event.at, "not_before": None, **_NO_PROCESS,
    }  # fmt: skip


def _registered(run: Run, event: Event) -> dict[str, Any]:
    return {"shim_pid": event.data["shim_pid"], "shim_start_ticks": event.data["shim_start_ticks"]}


def _spawned(run: Run, event: Event) -> dict[str, Any]:
    return {name: event.data.get(name) for name in ("pid", "start_ticks", "boot_id", "containment")}


def _started(run: Run, event: Event) -> dict[str, Any]:
    return {"started_at": run.started_at if run.started_at is not None else event.at}


def _released(run: Run, event: Event) -> dict[str, Any]:
    return {**_carried(run), **_NO_PROCESS, **_NO_SLOTS}


def _limit_reached(run: Run, event: Event) -> dict[str, Any]:
    if run.want is Want.STOP:
        return {}  # the first reason to stop is the one that is remembered
    return {"want": Want.STOP, "stop": {"who": "daemon", **event.data}, "pause_mode": None}


def _exited(run: Run, event: Event) -> dict[str, Any]:
    changes: dict[str, Any] = {"exit": dict(event.data)}
    if run.state is State.FAULT and run.fault is not None:
        evidence = {n: event.data[n] for n in ("exit_code", "signal") if event.data.get(n) is not None}
        changes["fault"] = {**evidence, **run.fault}
    return changes


def _finished(run: Run, event: Event) -> dict[str, Any]:
    return {
        "outcome": Outcome(event.data["outcome"]), "cause": event.data.get("cause"),
        "finished_at": _ended_at(run, event), **_NO_SLOTS,
    }  # fmt: skip


def _broke(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": dict(event.data["cause"])}


def _spawn_failed(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": {"kind": CauseKind.SPAWN_FAILED, **event.data}}


def _deadline_missed(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": dict(event.data)}


def _lost(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": run.fault or dict(event.data)}


def _requeued(run: Run, event: Event) -> dict[str, Any]:
    return {
        **_carried(run), **_NO_PROCESS, **_NO_SLOTS, "active_s": 0.0, "fault": None, "unkillable": False,
        "retries_used": run.retries_used + 1, "not_before": event.data["not_before"],
    }  # fmt: skip


def _withdrawn(run: Run, event: Event) -> dict[str, Any]:
    stop = run.stop or {}
    cause = {name: stop[name] for name in ("kind", "who", "reason") if stop.get(name) is not None}
    return {"outcome": Outcome.CANCELLED, "cause": cause or None, "finished_at": event.at}


def _carried(run: Run) -> dict[str, Any]:
    exit = run.exit or {}
    return {
        "steps_before": run.steps_before + int(exit.get("steps") or 0),
        "active_s": run.active_s + float(exit.get("active_s") or 0.0),
    }


def _ended_at(run: Run, event: Event) -> float:
    finished = (run.exit or {}).get("finished_at")
    return float(finished) if finished else event.at


_NO_PROCESS: dict[str, Any] = {
    "exit": None, "pid": None, "start_ticks": None, "boot_id": None, "containment": None,
    "shim_pid": None, "shim_start_ticks": None,
}  # fmt: skip
_NO_SLOTS: dict[str, Any] = {"slots": ()}

_FOLDS: Mapping[Kind, Callable[[Run, Event], dict[str, Any]]] = {
    K.STOP_REQUESTED: _stop_requested,
    K.PAUSE_REQUESTED: _pause_requested,
    K.RESUME_REQUESTED: _resume_requested,
    K.HOLD: lambda run, event: {"held": True},
    K.RELEASE: lambda run, event: {"held": False},
    K.SET: _set,
    K.DISPATCHED: _dispatched,
    K.REGISTERED: _registered,
    K.SPAWNED: _spawned,
    K.STARTED: _started,
    K.RELEASED: _released,
    K.LIMIT_REACHED: _limit_reached,
    K.EXITED: _exited,
    K.FINISHED: _finished,
    K.BROKE: _broke,
    K.SPAWN_FAILED: _spawn_failed,
    K.DEADLINE_MISSED: _deadline_missed,
    K.LOST: _lost,
    K.UNKILLABLE: lambda run, event: {"unkillable": True},
    K.REQUEUED: _requeued,
    K.GAVE_UP: _finished,
    K.WITHDRAWN: _withdrawn,
}


def replay(events: list[Event]) -> Run:
    """Return the run that `events` (from `submitted` on, in order) lead to; IllegalTransition else."""
    run = submitted(events[0])
    for event in events[1:]:
        run = apply(run, event)
    return run
