"""The fields that each event changes: one small function for each kind of event.

Only `fsm.apply` calls these functions, after it has checked that the event is legal; none of them may raise.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mosaicd.core.event import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, Outcome, PauseMode, State, Want

K = Kind


def _stop_requested(run: Run, event: Event) -> dict[str, Any]:
    stop = {"kind": CauseKind.BY_USER, "who": event.who, **event.data}
    if run.state is State.HSHK or (run.stop or {}).get("early"):
        stop["early"] = True  # a shim that registers now is ordered to stop, and never to start
    return {"want": Want.STOP, "stop": stop, "pause_mode": None}


def _pause_requested(run: Run, event: Event) -> dict[str, Any]:
    mode = event.data.get("mode")
    return {"want": Want.PAUSE, "pause_mode": PauseMode(mode) if mode else None}


def _resume_requested(run: Run, event: Event) -> dict[str, Any]:
    return {"want": Want.RUN, "pause_mode": None, "held": run.held and not run.is_waiting}


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
    return {name: event.data.get(name) for name in ("pid", "start_ticks", "boot_id", "containment", "limits")}


def _started(run: Run, event: Event) -> dict[str, Any]:
    return {"started_at": run.started_at if run.started_at is not None else event.at}


def _released(run: Run, event: Event) -> dict[str, Any]:
    return {**_carried(run), **_NO_PROCESS, **_NO_SLOTS}


def _limit_reached(run: Run, event: Event) -> dict[str, Any]:
    if run.want is Want.STOP:
        return {}  # the first reason for a stop is kept
    return {"want": Want.STOP, "stop": {"who": "daemon", **event.data}, "pause_mode": None}


def _exited(run: Run, event: Event) -> dict[str, Any]:
    changes: dict[str, Any] = {"exit": dict(event.data)}
    if run.state is State.FAULT and run.fault is not None:
        names = ("exit_code", "signal", "post_mortem")
        evidence = {name: event.data[name] for name in names if event.data.get(name) is not None}
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
    data = dict(event.data)
    return {"fault": {"kind": CauseKind(data.pop("cause", CauseKind.SPAWN_FAILED)), **data}}


def _deadline_missed(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": dict(event.data)}


def _lost(run: Run, event: Event) -> dict[str, Any]:
    return {"fault": run.fault or dict(event.data)}


def _unkillable(run: Run, event: Event) -> dict[str, Any]:
    """Note the living pids: in the fault of a run in FAULT, else in its exit (None before the exit)."""
    pids = list(event.data.get("pids") or ())  # events of older versions have no pids
    if not pids:
        return {"unkillable": True}
    if run.state is State.FAULT:
        return {"unkillable": True, "fault": {**(run.fault or {}), "pids": pids}}
    return {"unkillable": True, "exit": {**(run.exit or {}), "pids": pids}}


def _requeued(run: Run, event: Event) -> dict[str, Any]:
    return {
        **_carried(run), **_NO_PROCESS, **_NO_SLOTS, "active_s": 0.0, "fault": None,
        "retries_used": run.retries_used + 1, "not_before": event.data["not_before"],
        "quick_deaths": run.quick_deaths + 1 if event.data.get("quick") else 0,
    }  # fmt: skip


def _withdrawn(run: Run, event: Event) -> dict[str, Any]:
    stop = run.stop or {}
    cause = {name: stop[name] for name in ("kind", "who", "reason") if stop.get(name) is not None}
    return {"outcome": Outcome.CANCELLED, "cause": cause or None, "finished_at": event.at}


def _carried(run: Run) -> dict[str, Any]:
    """Return the steps and active seconds of all attempts, for the limits of the next attempt."""
    exit = run.exit or {}
    # A global step count already includes earlier attempts.
    steps = 0 if exit.get("steps_are_global") else int(exit.get("steps") or 0)
    return {
        "steps_before": run.steps_before + steps,
        "active_s": run.active_s + float(exit.get("active_s") or 0.0),
    }


def _ended_at(run: Run, event: Event) -> float:
    """Return the end of the process from the exit record, else the time of the event."""
    finished = (run.exit or {}).get("finished_at")
    return float(finished) if finished else event.at


_NO_PROCESS: dict[str, Any] = {
    "exit": None, "pid": None, "start_ticks": None, "boot_id": None, "containment": None, "limits": None,
    "shim_pid": None, "shim_start_ticks": None, "unkillable": False,
}  # fmt: skip
_NO_SLOTS: dict[str, Any] = {"slots": ()}

FOLDS: Mapping[Kind, Callable[[Run, Event], dict[str, Any]]] = {
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
    K.UNKILLABLE: _unkillable,
    K.REQUEUED: _requeued,
    K.GAVE_UP: _finished,
    K.WITHDRAWN: _withdrawn,
}
