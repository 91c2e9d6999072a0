"""The run object of the wire, built in one place, so that all replies and events agree.

Scripts rely on every key; an unknown value is null, never absent.
"""

from typing import Any

from mosaicd.core.run import Progress, Run
from mosaicd.protocol import Json
from mosaicd.protocol.records.attempt import EnforcedLimits
from mosaicd.protocol.states import PauseMode, State, Want


def run_object(
    run: Run, progress: Progress, run_dir: str, *, duplicate: bool = False, reason: str | None = None,
    pinned: bool = False,
) -> Json:  # fmt: skip
    """Return the JSON-safe run object; `reason`: why it does not start; `duplicate`: it is an earlier run."""
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
        "outcome": _text_or_none(run.outcome),
        "cause": _cause(run),
        "exit_code": exit.get("exit_code"),
        "signal": exit.get("signal"),
        "left_processes": exit.get("left_processes"),
        "pid": run.pid,
        "attempt": run.attempt,
        "slots": list(run.slots),
        "gpus": _gpus(run),
        "cpus": {"requested": run.cpus, "granted": _granted(run, run.cpus_granted)},
        "memory_mb": run.memory_mb,
        "stdin_bytes": run.stdin_bytes,
        "priority": run.priority,
        "labels": dict(run.labels),
        "digest": run.digest,
        "duplicate": duplicate,
        **_times(run, progress),
        "held": run.held,
        "pinned": pinned,
        "pause_mode": _text_or_none(run.pause_mode),
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
        "limits": EnforcedLimits.from_json(run.limits or {}).values(),
        "stall_s": run.stall_s,
        "heartbeat_timeout_s": run.heartbeat_timeout_s,
        "start_timeout_s": run.start_timeout_s,
        "handshake_timeout_s": run.handshake_timeout_s,
        "retry_on": [str(word) for word in run.retry_on],
        "origin": run.origin,
        "resumed_from": dict(progress.resumed_from) if progress.resumed_from else None,
        "checkpoint": dict(progress.checkpoint) if progress.checkpoint else None,
        "reason": _unkillable_reason(run) or reason or _why_not_progressing(run),
        "rev": run.rev,
    }


def _times(run: Run, progress: Progress) -> dict[str, float | None]:
    """Return the times of the run in UTC seconds, None for a time that does not exist yet.

    After a retry, `dispatched_at` is that of the newest attempt and `started_at` that of the first.
    `not_before` is the earliest start of a retry.
    """
    return {
        "created_at": run.created_at,
        "dispatched_at": run.dispatched_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "last_heartbeat_at": progress.last_heartbeat_at or run.started_at,
        "not_before": run.not_before,
    }


def _text_or_none(word: str | None) -> str | None:
    return None if word is None else str(word)


def _cause(run: Run) -> Json | None:
    """Return the cause of the end; before the end, that of the fault."""
    cause = run.cause if run.is_final else run.fault
    return {name: _without_enum(value) for name, value in cause.items()} if cause else None


def _unkillable_reason(run: Run) -> str | None:
    """Return the reason of an unkillable run, or None."""
    if run.is_final or not run.unkillable:
        return None
    pids = [str(pid) for pid in (run.fault or run.exit or {}).get("pids", ())]
    return "unkillable: processes are alive after KILL, so its slots stay reserved: pid " + (
        ", ".join(pids) or "?"
    )


def _why_not_progressing(run: Run) -> str | None:
    """Return what a run with slots waits for, or None; in FAULT the cause has it."""
    if run.state is State.FAULT or not run.is_holding:
        return None
    if run.exit is not None:
        return "its worker has exited; the rest of its process tree is being ended"
    if run.state is State.HSHK:
        return "its shim was ordered and has not registered yet"
    match run.want:
        case Want.STOP:
            return "being stopped: its processes have not ended yet"
        case Want.PAUSE if run.state is State.EXEC and run.pause_mode is not PauseMode.RELEASE:
            return "being paused: its process tree is not frozen yet"
        case Want.PAUSE if run.state is not State.RDY and run.pause_mode is PauseMode.RELEASE:
            return "being released: its worker has not saved and exited yet"
        case Want.RUN if run.state is State.PAUSE:
            return "being resumed: its process tree is still frozen"
    return "its worker has shown no sign of life yet" if run.state is State.RDY else None


def _without_enum(value: Any) -> Any:
    """Return a word of an enum as str, and every other value unchanged."""
    return str(value) if isinstance(value, str) else value


def _gpus(run: Run) -> Json:
    granted = _granted(run, run.gpus_granted)
    return {"requested": run.gpus, "mandatory": run.gpus_mandatory, "granted": granted}


def _granted(run: Run, granted: int | None) -> int | None:
    """Return the grant of a run that holds slots or has ended; None while it waits."""
    return None if run.is_waiting else granted


def _progress(run: Run, progress: Progress) -> Json:
    shown = progress.to_dict()
    if shown["total_steps"] is None:
        shown["total_steps"] = run.max_steps
    return shown
