"""Evidence as it comes from a shim or a file that a user may write: kept only where it has the right shape.

A user owns the user's shim and exit.json.  What is wrong there may spoil that user's own record, but it
must never reach the fold with a shape that the fold does not expect.
"""

from collections.abc import Mapping
from typing import Any

from mosaicd.protocol.states import CauseKind

TEXT_LIMIT = 1000
METRICS_LIMIT = 64

_NUMBER = (int, float)
_EXIT_FIELDS: Mapping[str, tuple[type, ...]] = {
    "exit_code": (int,), "signal": (int,), "core_dumped": (bool,), "started_at": _NUMBER,
    "finished_at": _NUMBER,
    "released": (bool,), "last_word": (str,), "error": (str,), "fault": (str,), "telemetry_seq": (int,),
    "stdout_bytes": (int,), "stderr_bytes": (int,), "steps": (int,), "episodes": (int,),
    "unparsed_lines": (int,),
    "swept": (bool,), "active_s": _NUMBER, "gap_bytes": (int,),
}  # fmt: skip
_STOP_FIELDS: Mapping[str, tuple[type, ...]] = {
    "kind": (str,), "who": (str,), "reason": (str,), "forced": (bool,), "grace_s": _NUMBER, "at": _NUMBER,
}  # fmt: skip
_LAST_WORDS = ("run_completed", "run_failed", "run_cancelled")


def exit_record(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known, well-typed part of an exit record; ValueError when it says nothing usable."""
    record = _typed(data, _EXIT_FIELDS)
    if record.get("fault") is not None and not _is_cause(record["fault"]):
        raise ValueError(f"fault: {record['fault']!r} is not a cause")
    if record.get("last_word") not in _LAST_WORDS:
        record["last_word"] = None
    if not 0 <= (record.get("exit_code") or 0) <= 255:
        raise ValueError(f"exit_code: {record['exit_code']} is not in 0..255")
    stop = data.get("stop")
    if isinstance(stop, Mapping):
        record["stop"] = _typed(stop, _STOP_FIELDS)
        if not _is_cause(record["stop"].get("kind")):
            raise ValueError(f"stop.kind: {stop.get('kind')!r} is not a cause")
    if not any(record.get(name) is not None for name in ("exit_code", "signal", "fault", "stop")):
        raise ValueError("an exit record needs exit_code, signal, fault or stop")
    if isinstance(data.get("rusage"), Mapping):
        record["rusage"] = numbers(data["rusage"])
    if isinstance(data.get("metrics"), Mapping):
        record["metrics"] = numbers(data["metrics"])
    return record


def spawned_record(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return pid, start_ticks, boot_id and containment of a spawned worker; ValueError without a pid."""
    record = _typed(data, {"pid": (int,), "start_ticks": (int,), "boot_id": (str,), "containment": (str,)})
    if not isinstance(record.get("pid"), int) or record["pid"] < 1:
        raise ValueError("pid: a positive integer is needed")
    return record


def numbers(data: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the finite numbers of `data`, at most METRICS_LIMIT of them."""
    found: dict[str, int | float] = {}
    for name, value in data.items():
        if (
            isinstance(value, _NUMBER)
            and not isinstance(value, bool)
            and abs(value) < 1e300
            and len(found) < METRICS_LIMIT
        ):
            found[str(name)[:80]] = value
    return found


def text(value: Any) -> str | None:
    """Return `value` when it is a string, cut to TEXT_LIMIT characters."""
    return value[:TEXT_LIMIT] if isinstance(value, str) else None


def _is_cause(word: Any) -> bool:
    return isinstance(word, str) and word in frozenset(CauseKind)


def _typed(data: Mapping[str, Any], allowed: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, types in allowed.items():
        value = data.get(name)
        if isinstance(value, bool) and bool not in types:
            continue
        if isinstance(value, types) and value == value:  # NaN is not equal to itself
            record[name] = text(value) if isinstance(value, str) else value
    return record
