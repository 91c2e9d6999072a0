"""The end of a run: outcome and cause from its exit record, and whether a fault is retried.

Note: the exit code decides only if there is no stop, no limit and no lifecycle event of the worker.
"""

from collections.abc import Mapping
from typing import Any

from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.states import CauseKind, Outcome, State, Want


def is_release(run: Run) -> bool:
    """Return whether the exit was a release: the worker saved its work and exited on request.

    The report of the shim is not enough: the run must have executed, and its worker must support checkpoints.
    """
    return _has_released(run) and run.want is not Want.STOP


def _has_released(run: Run) -> bool:
    is_able = run.can_checkpoint and run.state in (State.EXEC, State.PAUSE)
    return bool(is_able and run.exit and run.exit.get("released"))


def is_clean(run: Run) -> bool:
    """Return whether the exit needs no FAULT: the run did not fail, or its end was requested."""
    return run.want is Want.STOP or verdict(run)[0] is not Outcome.FAILED


def verdict(run: Run) -> tuple[Outcome, Json | None]:
    """Return outcome and cause for the exit record of the run.

    The first of these decides: a stop or limit that the shim began before it reaped the leader; the last
    lifecycle event of a MOSAIC worker; the exit code or signal of the process.
    """
    exit = run.exit or {}
    evidence = {name: exit[name] for name in ("exit_code", "signal") if exit.get(name) is not None}
    if exit.get("core_dumped"):
        evidence["core_dumped"] = True
    stop = exit.get("stop")
    if not stop and _has_released(run) and run.want is Want.STOP:
        stop = run.stop  # the worker exited for a release, but the run is stopped: not a success
    if stop:
        kind = CauseKind(stop["kind"])
        cause = {
            "kind": kind,
            **{n: stop[n] for n in ("who", "reason", "forced") if stop.get(n) is not None},
            **evidence,
        }
        return _STOPPED.get(kind, Outcome.FAILED), cause
    if exit.get("fault"):
        kind = CauseKind(exit["fault"])
        return Outcome.FAILED, {"kind": kind, "error": exit.get("error"), **exit.get("oom", {}), **evidence}
    word = exit.get("last_word") if run.kind == "worker" else None
    if word == "run_failed":
        return Outcome.FAILED, {"kind": CauseKind.WORKER_FAILED, "error": exit.get("error"), **evidence}
    if word == "run_cancelled":
        return Outcome.CANCELLED, {"kind": CauseKind.BY_USER, "who": "worker", **evidence}
    bad = _process_failure(exit, evidence)
    if word == "run_completed":
        return Outcome.SUCCEEDED, bad
    return (Outcome.FAILED, bad) if bad else (Outcome.SUCCEEDED, None)


def _process_failure(exit: Mapping[str, Any], evidence: Json) -> Json | None:
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


def never_started_verdict(run: Run) -> tuple[Outcome, Json] | None:
    """Return outcome and cause of a run that was stopped before its shim registered, and then failed; else
    None.

    Its worker never started, so the stop decides the outcome, and the fault is evidence.  A stop after a
    fault does not change the cause.
    """
    exit, fault = run.exit or {}, run.fault
    if fault is None and exit.get("fault") and not exit.get("stop"):
        fault = {"kind": exit["fault"], "error": exit.get("error")}
    is_early = run.want is Want.STOP and (run.stop or {}).get("early") and run.pid is None
    if not is_early or fault is None:
        return None
    stop = run.stop or {}
    kind = CauseKind(stop.get("kind") or CauseKind.BY_USER)
    cause = {name: stop[name] for name in ("who", "reason") if stop.get(name) is not None}
    cause |= {name: fault[name] for name in ("after_s", "error") if fault.get(name) is not None}
    return _STOPPED.get(kind, Outcome.FAILED), {"kind": kind, **cause, "never_started": str(fault["kind"])}


def is_quick_death(run: Run, at: float, within_s: float) -> bool:
    """Return whether the attempt that ends at `at` lasted less than `within_s` seconds."""
    exit = run.exit or {}
    began = exit.get("started_at") or run.dispatched_at
    ended = exit.get("finished_at") or at
    return began is not None and 0 <= ended - began < within_s


def is_retry_due(run: Run) -> bool:
    """Return whether a faulted run is retried: attempts are left, its cause is retried, no stop is
    requested."""
    kind = (run.fault or {}).get("kind")
    return run.want is not Want.STOP and run.retries_used < run.retries and kind in run.retry_on
