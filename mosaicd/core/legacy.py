"""Conversion of a run of the original MOSAIC into an ended run that never starts.

A run that was live when that registry was last written becomes `interrupted`, because its end is unknown.  An
id that is not a ULID is replaced by a ULID that is derived from it, so that a second import finds the same
run.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mosaicd.core.fsm import Event, Kind, apply, submitted
from mosaicd.core.run import Run
from mosaicd.protocol import Json, ulid
from mosaicd.protocol.states import LEGACY_OUTCOMES, CauseKind, Outcome, RunKind, State, parse_state

ORIGIN = "import"
_OUTCOMES: Mapping[str, Outcome] = {
    **LEGACY_OUTCOMES, "succeeded": Outcome.SUCCEEDED, "success": Outcome.SUCCEEDED, "ok": Outcome.SUCCEEDED,
    "complete": Outcome.SUCCEEDED, "fault": Outcome.FAILED, "faulted": Outcome.FAILED,
    "failure": Outcome.FAILED, "error": Outcome.FAILED, "canceled": Outcome.CANCELLED,
    "cancel": Outcome.CANCELLED, "timeout": Outcome.TIMEOUT, "interrupted": Outcome.INTERRUPTED,
}  # fmt: skip
_TEXT_LIMIT = 1000
_NAME_LIMIT = 120
_LATEST_S = 1e11


@dataclass(slots=True)
class Conversion:
    """The events of one run, each with the run after it; `notes` name unknown values."""

    steps: list[tuple[Run, Event]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(row: Mapping[str, object], owner: tuple[int, str], now: float) -> Conversion:
    """Return the run of a row (keys as in `store.importing`); raise ValueError if it has no id."""
    made = Conversion()
    old_id = _text(row.get("run_id"))
    if not old_id:
        raise ValueError("a row has no run_id")
    config = _config(row.get("config"), made)
    dated = next((at for at in _times(row, made) if at is not None), None)
    created = now if dated is None else dated
    started, finished = _time(row.get("started")), _time(row.get("finished"))
    run = Run(
        run_id=imported_id(old_id, dated or 0.0), owner_uid=owner[0], owner=owner[1], kind=RunKind.COMMAND,
        name=(_text(row.get("name")) or _text(config.get("run_name")) or old_id)[:_NAME_LIMIT],
        command=_command(config), digest=_text(row.get("digest")) or f"import:{old_id}"[:_TEXT_LIMIT],
        created_at=created, origin=ORIGIN, labels={"imported_id": old_id[:_NAME_LIMIT]}, gpus=_gpus(row),
    )  # fmt: skip
    outcome, cause = _end(row, made)
    ended = max(finished or _time(row.get("updated")) or started or created, started or created)
    first = Event(Kind.SUBMITTED, created, owner[1], {"run": run.to_dict()})
    made.steps.append((submitted(first), first))
    data = {"attempt": 1, "nonce": ORIGIN, "slots": [], "cpus": 1}
    events = [Event(Kind.DISPATCHED, started or created, ORIGIN, data)]
    if started is not None:
        events.append(Event(Kind.REGISTERED, started, ORIGIN, {"shim_pid": None, "shim_start_ticks": None}))
        events.append(Event(Kind.STARTED, started, ORIGIN))
    events.append(Event(Kind.FINISHED, ended, ORIGIN, {"outcome": outcome, "cause": cause}))
    for event in events:
        made.steps.append((apply(made.steps[-1][0], event), event))
    return made


def imported_id(old_id: str, created: float) -> str:
    """Return the id of an imported run: its own if that is a ULID, else a derived one."""
    if ulid.is_ulid(old_id):
        return ulid.parse(old_id)
    milliseconds = min(max(0, int(created * 1000)), (1 << 48) - 1)
    return ulid.encode(milliseconds, hashlib.sha256(f"mosaic import\0{old_id}".encode()).digest()[:10])


def _end(row: Mapping[str, object], made: Conversion) -> tuple[Outcome, Json | None]:
    """Return the end of the run, from its status, else its outcome, else its reason of failure."""
    word = _word(row.get("status"))
    failure = _text(row.get("failure"))
    told = _word(row.get("outcome"))
    try:
        state: State | None = parse_state(word)
    except ValueError:
        state = None
        made.notes.append(f"the status {word[:40]!r} is unknown: imported as interrupted")
    if state is not State.TERM:
        return Outcome.INTERRUPTED, _cause(CauseKind.SHIM_LOST, failure, f"its last status was {word[:40]!r}")
    outcome = LEGACY_OUTCOMES.get(word) or _OUTCOMES.get(told)
    if outcome is None and told:
        made.notes.append(f"the outcome {told[:40]!r} is unknown")
    if outcome is None:
        outcome = Outcome.FAILED if failure else Outcome.INTERRUPTED
        if not failure:
            made.notes.append(f"the status {word!r} is not an end: imported as interrupted")
    match outcome:
        case Outcome.SUCCEEDED:
            return outcome, None
        case Outcome.CANCELLED:
            return outcome, _cause(CauseKind.BY_USER, failure, None)
        case Outcome.TIMEOUT:
            return outcome, _cause(CauseKind.TIME_LIMIT, failure, None)
        case Outcome.FAILED:
            is_silent = failure is not None and failure.lower().startswith("worker_timeout")
            kind = CauseKind.HEARTBEAT_LOST if is_silent else CauseKind.WORKER_FAILED
            return outcome, _cause(kind, failure, None)
        case _:
            return outcome, _cause(CauseKind.SHIM_LOST, failure, None)


def _cause(kind: CauseKind, *words: str | None) -> Json:
    error = next((word for word in words if word), None)
    return {"kind": kind, "error": error} if error else {"kind": kind}


def _word(value: object) -> str:
    """Return a status word without the prefix of an enum: RUN_STATUS_COMPLETED, RunStatus.COMPLETED."""
    word = (_text(value) or "").lower().rpartition(".")[2]
    return word.removeprefix("run_status_").removeprefix("status_")


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    text = value.strip().encode("utf-8", "replace").decode()
    return text[:_TEXT_LIMIT] or None


def _times(row: Mapping[str, object], made: Conversion) -> list[float | None]:
    found = []
    for means in ("created", "started", "updated", "finished"):
        at = _time(row.get(means))
        if at is None and row.get(means) not in (None, ""):
            made.notes.append(f"{means} {str(row[means])[:40]!r} is not a time")
        found.append(at)
    return found


def _time(value: object) -> float | None:
    """Return Unix seconds for a number (seconds or milliseconds) or an ISO text (UTC unless it has a
    zone)."""
    if isinstance(value, str):
        try:
            return _time(float(value))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    at = value / 1000 if value > _LATEST_S else float(value)
    return at if at <= _LATEST_S else None


def _config(value: object, made: Conversion) -> Json:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if text in (None, ""):
        return {}
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        made.notes.append("the config is not a JSON object")
        return {}
    inner = config.get("canonical") or config.get("config") or config
    return inner if isinstance(inner, dict) else config


def _command(config: Mapping[str, Any]) -> tuple[str, ...]:
    entry, arguments = _text(config.get("entry_point")), config.get("arguments")
    rest = arguments if isinstance(arguments, list) else []
    return tuple(str(word)[:_TEXT_LIMIT] for word in [entry, *rest]) if entry else ()


def _gpus(row: Mapping[str, object]) -> int:
    value = row.get("gpus")
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [part for part in str(value).split(",") if part.strip()]
    if isinstance(value, list):
        return min(len(value), 1024)
    return 1 if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
