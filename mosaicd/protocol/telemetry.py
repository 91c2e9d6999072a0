"""Telemetry: recognise records in the lines that workers print, and find the numbers in them.

The shim calls `classify` for each line that may be a record, and keeps the object of the worker unchanged.
Workers use several dialects; the constants list their names for one thing.  The kind of a record is under one
of three keys (`event`, `type`, `event_type`); an object without a known kind is ordinary output, not a fault.
Numbers may be NaN and Infinity, as Python's json module writes them.
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
#: The kind of a valid event with an unknown name.
OTHER = "event"
#: The kind of a record that the shim adds where output or records were dropped.
GAP = "gap"
LAST_WORDS = frozenset({"run_completed", "run_failed", "run_cancelled"})

DISCRIMINATORS = ("event", "type", "event_type")
#: Keys for the worker's own count of environment steps, over all attempts.
GLOBAL_STEP = ("global_step", "num_timesteps", "total_steps")
RETURN = ("total_reward", "reward", "return", "episode_return")
LENGTH = ("steps", "num_steps", "length", "episode_length")
TOTAL_STEPS = ("total_timesteps", "total_steps")
TOTAL_EPISODES = ("total_episodes", "num_episodes", "episodes", "max_episodes")


class NotARecord(ValueError):
    """The line begins like a JSON object but is not a valid one."""


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
    """Return the number; the text Infinity or -Infinity if it is beyond a double."""
    value = float(literal)
    return value if -_INFINITY < value < _INFINITY else ("Infinity" if value > 0 else "-Infinity")


_plain = json.JSONDecoder()
#: NaN, Infinity and numbers beyond a double become strings, so that the result encodes as strict JSON.
_lenient = json.JSONDecoder(parse_constant=str, parse_float=_strict_float)


def classify(line: bytes) -> Recognised | None:
    """Return the record in `line`; None for an object that is no telemetry.

    Raises NotARecord for invalid JSON.
    """
    line = line.strip()
    replaced = False
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("utf-8", "replace")
        replaced = True
    is_python_json = "NaN" in text or "Infinity" in text
    data = _decode(_lenient if is_python_json else _plain, text)
    if type(data) is not dict:
        raise NotARecord("not an object")
    kind = kind_of(data)
    if kind is None:
        return None
    if is_python_json:
        line = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    elif replaced:
        line = text.encode()
    return Recognised(kind, data, line, replaced)


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        data, end = decoder.raw_decode(text)
    except (ValueError, RecursionError) as error:  # RecursionError: too deep for the interpreter
        raise NotARecord(str(error)) from None
    if end != len(text):
        raise NotARecord("text after the object")
    return data


def kind_of(data: Json) -> str | None:
    """Return the kind of the record `data`: OTHER for an unknown event, None if it is no telemetry."""
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
    """Return the payload of a lifecycle record; some workers print its fields at the top level."""
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
    """Return whether `value` is a finite float or a 64-bit int; True and False are not numbers."""
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
    """Return the worker's own step count (at the top level, in payload or in metadata), or None."""
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


def _maybe_json(text: str) -> Any:
    """Return the JSON value in `text`, or `text` itself if it is not JSON."""
    try:
        return _lenient.decode(text)
    except (ValueError, RecursionError):
        return text
