"""Encoding of one JSON object as one ASCII line, for any object.

The line is strict JSON: the three numbers that JSON lacks become the strings "NaN", "Infinity" and
"-Infinity".  A value that JSON does not know (an array, a path, a set, a tensor) becomes the nearest plain
form, or its `repr`; encoding never raises because of a value.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 60

_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def dumps(value: Any) -> str:
    """Return `value` as strict JSON without a line break; never raises because of the value."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError):
        return _encoder.encode(plain(value))


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` converted to dict, list, str, int, finite float, bool and None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite_or_name(value)
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {_key_text(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist(), depth + 1)
    return repr(value)


def _finite_or_name(value: float) -> float | str:
    """Return a finite number, or the name of NaN or an infinity."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int)):
        return json.dumps(key)
    return str(key)
