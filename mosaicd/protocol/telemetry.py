"""What workers print: one line of stdout -> a telemetry record, and a record -> one shape for readers.

The shim calls `classify` on every candidate line and keeps the worker's own object unchanged; only a
reader calls `normalise`, which folds four dialects and their synonyms into one set of names.  Three
discriminators are in use (`event`, `type`, `event_type`), JSON is often Python's (bare NaN and
Infinity), and an object without a known discriminator is ordinary output, not a fault.
"""

import json
from typing import Any

from mosaicd.protocol import Json

#: The name and version of this vocabulary, exchanged in `worker.register`.
SCHEMA_ID = "mosaic.telemetry"
SCHEMA_VERSION = 1

#: The longest line that can be a record; a longer one is counted and skipped.
LINE_LIMIT_BYTES = 8 << 20

LIFECYCLE = frozenset({
    "run_started", "run_completed", "run_failed", "run_cancelled", "heartbeat",
    "checkpoint_saved", "checkpoint_loaded", "paused", "resumed",
})  # fmt: skip
KINDS = LIFECYCLE | {"step", "episode", "artifact", "error"}
#: A well-formed event of a name that is not ours.
OTHER = "event"
#: What the shim adds where output or records were shed.
GAP = "gap"
LAST_WORDS = frozenset({"run_completed", "run_failed", "run_cancelled"})

DISCRIMINATORS = ("event", "type", "event_type")
#: A worker's own count of environment steps over its whole life.
GLOBAL_STEP = ("global_step", "num_timesteps", "total_steps")
RETURN = ("total_reward", "reward", "return", "episode_return")
LENGTH = ("steps", "num_steps", "length", "episode_length")
TOTAL_STEPS = ("total_timesteps", "total_steps")
TOTAL_EPISODES = ("total_episodes", "num_episodes", "episodes", "max_episodes")


class NotARecord(ValueError):
    """The line begins like an object and is not one."""


class Recognised:
    """A telemetry line: its kind, the object, and the object's text as strict JSON on one line."""

    __slots__ = ("data", "kind", "replaced", "text")

    def __init__(self, kind: str, data: Json, text: bytes, replaced: bool) -> None:
        self.kind = kind
        self.data = data
        self.text = text
        self.replaced = replaced


_INFINITY = float("inf")
_INT64 = 1 << 63


def _strict_float(literal: str) -> float | str:
    value = float(literal)
    return value if -_INFINITY < value < _INFINITY else ("Infinity" if value > 0 else "-Infinity")


_plain = json.JSONDecoder()
#: NaN, Infinity and numbers beyond a double become strings, so that the result encodes as strict JSON.
_lenient = json.JSONDecoder(parse_constant=str, parse_float=_strict_float)


def classify(line: bytes) -> Recognised | None:
    """Return the record in `line`, or None for an object that is no telemetry; NotARecord for broken JSON."""
    line = line.strip()
    replaced = False
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("utf-8", "replace")
        replaced = True
    foreign = "NaN" in text or "Infinity" in text
    data = _decode(_lenient if foreign else _plain, text)
    if type(data) is not dict:
        raise NotARecord("not an object")
    kind = kind_of(data)
    if kind is None:
        return None
    if foreign:
        line = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    elif replaced:
        line = text.encode()
    return Recognised(kind, data, line, replaced)


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        data, end = decoder.raw_decode(text)
    except (ValueError, RecursionError) as error:  # the latter: nested deeper than the interpreter goes
        raise NotARecord(str(error)) from None
    if end != len(text):
        raise NotARecord("text after the object")
    return data


def kind_of(data: Json) -> str | None:
    """Return the record kind that `data` declares, OTHER for an unknown event, None for no telemetry."""
    for key in DISCRIMINATORS:
        word = data.get(key)
        if type(word) is str and word in KINDS:
            return word
    event = data.get("event")
    if type(event) is str and event and ("payload" in data or "run_id" in data or "timestamp" in data):
        return OTHER
    event = data.get("event_type")
    if type(event) is str and event and "run_id" in data:
        return OTHER
    return None


def payload_of(data: Json) -> Json:
    """Return the lifecycle payload; a worker that prints its fields flat has them at the top."""
    payload = data.get("payload")
    return payload if type(payload) is dict else data


def first_number(data: Json, keys: tuple[str, ...]) -> float | int | None:
    """Return the first finite number under one of `keys`."""
    for key in keys:
        value = data.get(key)
        if value is not None and is_number(value):
            return value  # type: ignore[no-any-return]  # is_number cannot narrow without typing's TypeGuard
    return None


def is_number(value: Any) -> bool:
    """Say whether `value` is a finite float or a 64-bit int; True and False are not numbers here."""
    kind = type(value)
    if kind is int:
        return -_INT64 <= value < _INT64  # type: ignore[no-any-return]
    return kind is float and -_INFINITY < value < _INFINITY


def scalars(kind: str, data: Json) -> Json:
    """Return the named finite numbers in a record's `metrics`, and in a heartbeat's or event's payload."""
    found: Json = {}
    payload = data.get("payload")
    sources = [data.get("metrics")]
    if type(payload) is dict:
        sources.append(payload.get("metrics"))
        if kind in ("heartbeat", OTHER):
            sources.append(payload)
    for source in sources:
        if type(source) is dict:
            for name, value in source.items():
                if is_number(value):
                    found[name] = value
    return found


def global_step(data: Json) -> int | None:
    """Return the worker's own step count where the record has one, at the top, in payload or in metadata."""
    step = first_number(data, GLOBAL_STEP)
    if step is None:
        for key in ("payload", "metadata"):
            inner = data.get(key)
            if type(inner) is dict:
                step = first_number(inner, GLOBAL_STEP)
                if step is not None:
                    break
        else:
            metadata = data.get("metadata_json")
            if type(metadata) is str and ("step" in metadata):
                inner = _maybe_json(metadata)
                if type(inner) is dict:
                    step = first_number(inner, GLOBAL_STEP)
    return int(step) if step is not None and 0 <= step < _INT64 else None


# ---------------------------------------------------------------------------------------------------
# The reader's side

#: Names of ours <- names in use, first hit wins; `*_json` values are decoded where they are JSON.
_STEP: dict[str, tuple[str, ...]] = {
    "step": ("step_index", "step"),
    "action": ("action_json", "action"),
    "observation": ("observation_json", "observation", "state"),
    "next_observation": ("next_observation", "next_state"),
    "reward": ("reward",),
}
_EPISODE: dict[str, tuple[str, ...]] = {
    "return": RETURN,
    "steps": LENGTH,
    "success": ("success",),
    "duration_s": ("duration_seconds", "duration_s"),
}
_BOTH: dict[str, tuple[str, ...]] = {
    "episode": ("episode_index", "episode"),
    "terminated": ("terminated", "done"),
    "truncated": ("truncated",),
    "metadata": ("metadata_json", "metadata"),
    "render": ("render_hint_json", "render"),
}
_ALL: dict[str, tuple[str, ...]] = {
    "run_id": ("run_id",),
    "worker_id": ("worker_id",),
    "agent_id": ("agent_id",),
}
_ARTIFACT: dict[str, tuple[str, ...]] = {"artifact": ("kind",), "path": ("path",)}
_CLOCKS = ("ts_unix_ns", "timestamp", "ts")
_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "step": {**_ALL, **_BOTH, **_STEP},
    "episode": {**_ALL, **_BOTH, **_EPISODE},
    "artifact": {**_ALL, **_ARTIFACT},
    "error": {**_ALL, "message": ("message", "error")},
}
_NUMBERS = frozenset({"step", "episode", "steps"})


def normalise(record: Json) -> Json:
    """Return a line of telemetry.jsonl under one set of names; what has no common name is under `extra`.

    Keys: seq, at (when the shim read it), kind, time (the worker's clock, unix seconds, or None), then
    by kind: episode step action observation reward ... (step); episode return steps success ...
    (episode); artifact path; message; `event` and `payload` (lifecycle and other events).
    """
    data: Json = dict(record.get("data") or {})
    kind = str(record.get("kind", OTHER))
    view: Json = {"seq": record.get("seq"), "at": record.get("at"), "kind": kind}
    view["time"] = _clock(data)
    names = [data.pop(key, None) for key in DISCRIMINATORS]
    if kind == GAP:
        return {**view, **data}
    for name, keys in _FIELDS.get(kind, _ALL).items():
        value = _take(data, keys)
        if value is not None:
            view[name] = _whole(value) if name in _NUMBERS else value
    if kind in _FIELDS:
        _episode_from_id(view, data)
        view["extra"] = data
    else:
        view["event"] = next((name for name in names if name), kind)
        payload = data.pop("payload", None)
        view["payload"] = {**data, **payload} if type(payload) is dict else data
    return view


def _take(data: Json, keys: tuple[str, ...]) -> Any:
    found = None
    for key in keys:
        value = data.pop(key, None)
        if found is None and value is not None:
            decoded = key.endswith("_json") or key in ("metadata", "render")
            found = _maybe_json(value) if decoded and type(value) is str else value
    return found


def _maybe_json(text: str) -> Any:
    try:
        return _lenient.decode(text)
    except (ValueError, RecursionError):
        return text


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _episode_from_id(view: Json, data: Json) -> None:
    """`<run id>-ep000012` is how the language-model workers number an episode within a step."""
    if "episode" in view or type(data.get("episode_id")) is not str:
        return
    digits = data["episode_id"].rpartition("ep")[2]
    if digits.isascii() and digits.isdigit():
        view["episode"] = int(digits)


def _clock(data: Json) -> float | None:
    """Take the worker's clock out of `data` as unix seconds; a date without a zone is UTC."""
    found = None
    for key in _CLOCKS:
        value = data.get(key)
        seconds: float | None = None
        if value is not None and is_number(value):
            seconds = value / 1e9 if key == "ts_unix_ns" else float(value)
        elif type(value) is str:
            seconds = _iso_seconds(value)
        if seconds is not None:
            del data[key]
            found = seconds if found is None else found
    return found


def _iso_seconds(text: str) -> float | None:
    from datetime import UTC, datetime  # readers only: the shim never pays for it

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
