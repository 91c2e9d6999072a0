"""How a run ended: outcome and cause from its exit record, and whether a fault is worth another attempt.

A reader would get wrong: an exit code alone decides only where nobody with a better claim has spoken.
"""

from collections.abc import Mapping
from typing import Any

from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, Outcome, State, Want


def is_release(run: Run) -> bool:
    """Whether the exit was the worker leaving its slots on request, to come back later.

    A shim's word is not enough: only a run that worked, and whose worker checkpoints, can come back.
    """
    return _has_left(run) and run.want is not Want.STOP


def _has_left(run: Run) -> bool:
    is_able = run.can_checkpoint and run.state in (State.EXEC, State.PAUSE)
    return bool(is_able and run.exit and run.exit.get("released"))


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
    if not stop and _has_left(run) and run.want is Want.STOP:
        stop = run.stop  # it left in order to come back, and may not: that is no success
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


def cut_short(run: Run) -> tuple[Outcome, dict[str, Any]] | None:
    """Return outcome and cause of a run that was stopped before its shim came, and broke; else None.

    Such a shim is never told to start, so what was asked for is what happened; what broke is evidence.  A
    stop that comes after a fault changes nothing about it.
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
    """Whether the attempt that ends at `at` lived for less than `within_s` seconds."""
    exit = run.exit or {}
    began = exit.get("started_at") or run.dispatched_at
    ended = exit.get("finished_at") or at
    return began is not None and 0 <= ended - began < within_s


def is_retry_due(run: Run) -> bool:
    """Whether a faulted run is to be queued again: attempts left, a cause that is retried, no stop wanted."""
    kind = (run.fault or {}).get("kind")
    return run.want is not Want.STOP and run.retries_used < run.retries and kind in run.retry_on
