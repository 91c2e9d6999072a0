"""The run object: what the wire shows of a run, in one place, so that every reply and event agrees.

Scripts rely on every key being there; what is not known is null, never left out.
"""

from typing import Any

from mosaicd.core.evidence import LIMITS
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.states import PauseMode, State, Want


def run_object(
    run: Run, progress: Progress, run_dir: str, *, duplicate: bool = False, reason: str | None = None,
    pinned: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the JSON-safe run object; `reason`: why it has no turn; `duplicate`: a submit came to it."""
    exit = run.exit or {}
    return {
        "run_id": run.run_id,
        "name": run.name,
        "owner": run.owner,
        "owner_uid": run.owner_uid,
        "kind": str(run.kind),
        "worker_kind": run.worker_kind,
        "state": str(run.state),
        "want": str(run.want),
        "outcome": _word(run.outcome),
        "cause": _cause(run),
        "exit_code": exit.get("exit_code"),
        "signal": exit.get("signal"),
        "pid": run.pid,
        "attempt": run.attempt,
        "slots": list(run.slots),
        "gpus": _gpus(run),
        "cpus": {"requested": run.cpus, "granted": _granted(run, run.cpus_granted)},
        "memory_mb": run.memory_mb,
        "priority": run.priority,
        "labels": dict(run.labels),
        "digest": run.digest,
        "duplicate": duplicate,
        **_times(run, progress),
        "held": run.held,
        "pinned": pinned,
        "pause_mode": _word(run.pause_mode),
        "released": run.released,
        "run_dir": run_dir,
        "cwd": run.cwd,
        "command": list(run.command),
        "time_limit_s": run.time_limit_s,
        "max_steps": run.max_steps,
        "grace_s": run.grace_s,
        "retries": run.retries,
        "retries_used": run.retries_used,
        "progress": _progress(run, progress),
        "metrics": dict(progress.metrics),
        "containment": run.containment,
        "limits": {name: (run.limits or {}).get(name) for name in LIMITS},
        "stall_s": run.stall_s,
        "heartbeat_timeout_s": run.heartbeat_timeout_s,
        "start_timeout_s": run.start_timeout_s,
        "handshake_timeout_s": run.handshake_timeout_s,
        "retry_on": [str(word) for word in run.retry_on],
        "origin": run.origin,
        "resumed_from": dict(progress.resumed_from) if progress.resumed_from else None,
        "checkpoint": dict(progress.checkpoint) if progress.checkpoint else None,
        "reason": _unkillable(run) or reason or _waits_for(run),
        "rev": run.rev,
    }


def _times(run: Run, progress: Progress) -> dict[str, float | None]:
    """Return when the run reached each stage: UTC seconds, None for a stage that it has not reached."""
    return {
        "created_at": run.created_at,
        "dispatched_at": run.dispatched_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "last_heartbeat_at": progress.last_heartbeat_at or run.started_at,
        "not_before": run.not_before,
    }


def _word(word: str | None) -> str | None:
    return None if word is None else str(word)


def _cause(run: Run) -> dict[str, Any] | None:
    """The cause of the end; before it, of the fault that is being cleaned up."""
    cause = run.cause if run.is_final else run.fault
    return {name: _plain(value) for name, value in cause.items()} if cause else None


def _unkillable(run: Run) -> str | None:
    """Why a run that should be gone still has its slots."""
    if run.is_final or not run.unkillable:
        return None
    pids = [str(pid) for pid in (run.fault or run.exit or {}).get("pids", ())]
    return "unkillable: still there after KILL, so its slots are not free: pid " + (", ".join(pids) or "?")


def _waits_for(run: Run) -> str | None:
    """Whom a run waits for that has slots and is not where it should be; in FAULT the cause says it."""
    if run.state is State.FAULT or not run.is_holding:
        return None
    if run.exit is not None:
        return "its worker has ended; what is left of its process tree is being ended"
    if run.state is State.HSHK:
        return "its shim was ordered and has not come yet"
    match run.want:
        case Want.STOP:
            return "being stopped: its processes have not ended yet"
        case Want.PAUSE if run.state is State.EXEC and run.pause_mode is not PauseMode.RELEASE:
            return "being paused: its process tree does not stand still yet"
        case Want.PAUSE if run.state is not State.RDY and run.pause_mode is PauseMode.RELEASE:
            return "being released: its worker has not saved and left yet"
        case Want.RUN if run.state is State.PAUSE:
            return "being resumed: its process tree has not been let go on yet"
    return "its worker has shown no sign of life yet" if run.state is State.RDY else None


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _gpus(run: Run) -> dict[str, Any]:
    granted = _granted(run, run.gpus_granted)
    return {"requested": run.gpus, "mandatory": run.gpus_mandatory, "granted": granted}


def _granted(run: Run, granted: int | None) -> int | None:
    """What was granted is said while it is held and after the end, not while waiting for the next turn."""
    return None if run.is_waiting else granted


def _progress(run: Run, progress: Progress) -> dict[str, Any]:
    shown = progress.to_dict()
    if shown["total_steps"] is None:
        shown["total_steps"] = run.max_steps
    return shown
