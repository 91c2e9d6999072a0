"""Evidence as it comes from a shim or a file that a user may write: kept only where it has the right shape.

A user owns the user's shim and exit.json.  What is wrong there may spoil that user's own record, but it
must never reach the fold with a shape that the fold does not expect, nor the registry or the wire with
what neither can say (NaN, half a surrogate pair, a number without end).
"""

import math
from collections.abc import Mapping
from typing import Any

from mosaicd.protocol.states import CauseKind

TEXT_LIMIT = 1000
METRICS_LIMIT = 64
NAME_LIMIT = 80
#: Counts, pids and sizes: exact in every JSON reader, and far from what SQLite and C have no room for.
MOST_COUNT = 2**53
#: Times and durations in seconds: thirty thousand years.
MOST_SECONDS = 1e12
_MOST_METRIC = 1e300
_MOST_SIGNAL = 64

_COUNT, _SECONDS, _WORD, _FLAG = "count", "seconds", "word", "flag"
_EXIT_FIELDS: Mapping[str, str] = {
    "exit_code": _COUNT, "signal": _COUNT, "core_dumped": _FLAG, "started_at": _SECONDS,
    "finished_at": _SECONDS, "released": _FLAG, "last_word": _WORD, "error": _WORD, "fault": _WORD,
    "telemetry_seq": _COUNT, "stdout_bytes": _COUNT, "stderr_bytes": _COUNT, "steps": _COUNT,
    "episodes": _COUNT, "unparsed_lines": _COUNT, "swept": _FLAG, "active_s": _SECONDS, "gap_bytes": _COUNT,
    "steps_are_global": _FLAG,
}  # fmt: skip
_STOP_FIELDS: Mapping[str, str] = {
    "kind": _WORD, "who": _WORD, "reason": _WORD, "forced": _FLAG, "grace_s": _SECONDS, "at": _SECONDS,
}  # fmt: skip
_SPAWNED_FIELDS: Mapping[str, str] = {
    "pid": _COUNT, "start_ticks": _COUNT, "boot_id": _WORD, "containment": _WORD,
}  # fmt: skip
_POST_MORTEM_FIELDS: Mapping[str, str] = {
    "file": _WORD, "processes": _COUNT, "state": _WORD, "waits_in": _WORD, "python": _WORD,
}  # fmt: skip
_POINT_FIELDS: Mapping[str, str] = {"path": _WORD, "step": _COUNT, "at": _SECONDS, "sha256": _WORD}
_POINTS = ("resumed_from", "checkpoint")
_OOM_FIELDS: Mapping[str, str] = {
    "victims": _COUNT, "limit_bytes": _COUNT, "peak_bytes": _COUNT, "refusals": _COUNT,
}  # fmt: skip
#: Limits of a run that its control groups enforce.
LIMITS: Mapping[str, str] = {"memory_bytes": _COUNT, "tasks": _COUNT, "cpu_weight": _COUNT}
_LAST_WORDS = ("run_completed", "run_failed", "run_cancelled")


def exit_record(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known, well-typed part of an exit record; ValueError when it says nothing usable."""
    record = _typed(data, _EXIT_FIELDS)
    if record.get("fault") is not None and not _is_cause(record["fault"]):
        raise ValueError("fault: not a cause")
    if record.get("last_word") not in _LAST_WORDS:
        record["last_word"] = None
    if record.get("exit_code", 0) > 255:
        raise ValueError(f"exit_code: {record['exit_code']} is not in 0..255")
    if not 1 <= record.get("signal", 1) <= _MOST_SIGNAL:
        raise ValueError(f"signal: {record['signal']} is not in 1..{_MOST_SIGNAL}")
    stop = data.get("stop")
    if isinstance(stop, Mapping):
        record["stop"] = _typed(stop, _STOP_FIELDS)
        if not _is_cause(record["stop"].get("kind")):
            raise ValueError("stop.kind: not a cause")
    if isinstance(data.get("oom"), Mapping):
        record["oom"] = _typed(data["oom"], _OOM_FIELDS)
    if not any(record.get(name) is not None for name in ("exit_code", "signal", "fault", "stop")):
        raise ValueError("an exit record needs exit_code, signal, fault or stop")
    for name in _POINTS:
        point = checkpoint(data.get(name))
        if point is not None:
            record[name] = point
    if isinstance(data.get("post_mortem"), Mapping):
        record["post_mortem"] = _typed(data["post_mortem"], _POST_MORTEM_FIELDS)
    for name in ("rusage", "metrics"):
        if isinstance(data.get(name), Mapping):
            record[name] = numbers(data[name])
    return record


def spawned_record(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return who a spawned worker is and what holds it; ValueError without a pid."""
    record = _typed(data, _SPAWNED_FIELDS)
    if isinstance(data.get("limits"), Mapping):
        record["limits"] = _typed(data["limits"], LIMITS)
    if record.get("pid", 0) < 1:
        raise ValueError("pid: a positive integer is needed")
    return record


def numbers(data: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the finite numbers of `data`, at most METRICS_LIMIT of them."""
    found: dict[str, int | float] = {}
    for name, value in data.items():
        if len(found) == METRICS_LIMIT:
            break
        if _is_number(value) and abs(value) < _MOST_METRIC:
            shown = value if isinstance(value, float) or abs(value) <= MOST_COUNT else float(value)
            found[_sayable(str(name))[:NAME_LIMIT]] = shown
    return found


def checkpoint(value: Any) -> dict[str, Any] | None:
    """Return path, step, time and hash of a checkpoint as a shim tells of it; None without a path."""
    point = _typed(value, _POINT_FIELDS) if isinstance(value, Mapping) else {}
    return point if point.get("path") else None


def text(value: Any) -> str | None:
    """Return `value` when it is a string, cut to TEXT_LIMIT characters, as everybody can be sent it."""
    return _sayable(value[:TEXT_LIMIT]) if isinstance(value, str) else None


def seconds(value: Any) -> float | None:
    """Return `value` when it is a time or duration that anybody can mean, else None."""
    return float(value) if _is_number(value) and 0 <= value <= MOST_SECONDS else None


def _sayable(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_cause(word: Any) -> bool:
    return isinstance(word, str) and word in frozenset(CauseKind)


def _typed(data: Mapping[str, Any], allowed: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, what in allowed.items():
        value = _of(what, data.get(name))
        if value is not None:
            record[name] = value
    return record


def _of(what: str, value: Any) -> Any:
    if what == _WORD:
        return text(value)
    if what == _SECONDS:
        return seconds(value)
    if what == _FLAG:
        return value if isinstance(value, bool) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
    return value if is_count else None
