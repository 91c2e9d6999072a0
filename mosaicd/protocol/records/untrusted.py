"""Read data that a user may have written: a value is kept only if it has the declared type.

Shims and run directories belong to the user.  Invalid data there may damage the records of this user; it must
never give the core a value of an unexpected type, nor the registry or the wire a value that they cannot
represent (NaN, half a surrogate pair, a very large integer).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from mosaicd.protocol.records.record import Record

TEXT_LIMIT = 1000
METRICS_LIMIT = 64
NAME_LIMIT = 80
RECORDS_LIMIT = 100
#: The largest count, pid or size: exact in every JSON reader, and valid in SQLite and C.
MOST_COUNT = 2**53
#: The largest time or duration in seconds: thirty thousand years.
MOST_SECONDS = 1e12
_MOST_METRIC = 1e300

R = TypeVar("R", bound=Record)


def read(cls: type[R], data: Any) -> R:
    """Return the record in `data`; a field that is absent or has a wrong type gets its default."""
    if not isinstance(data, Mapping):
        return cls()
    checks = _checks_of(cls)
    values = {
        name: checks[name](value) for name, value in data.items() if value is not None and name in checks
    }
    return cls(**{name: value for name, value in values.items() if value is not None})


def text(value: Any) -> str | None:
    """Return `value` if it is a string, cut to TEXT_LIMIT characters and safe to encode; else None."""
    return _encodable(value[:TEXT_LIMIT]) if isinstance(value, str) else None


def seconds(value: Any) -> float | None:
    """Return `value` if it is a plausible time or duration in seconds, else None."""
    return float(value) if _is_number(value) and 0 <= value <= MOST_SECONDS else None


def count(value: Any) -> int | None:
    """Return `value` if it is a whole number in 0..MOST_COUNT, else None."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
    return value if is_count else None


def flag(value: Any) -> bool | None:
    """Return `value` if it is a boolean, else None."""
    return value if isinstance(value, bool) else None


def numbers(value: Any) -> dict[str, int | float] | None:
    """Return the first METRICS_LIMIT numbers of a JSON object; None if `value` is no object.

    Numbers of _MOST_METRIC and more, infinity and NaN are dropped.  An integer above MOST_COUNT becomes a
    float.  Names are cut to NAME_LIMIT characters.
    """
    if not isinstance(value, Mapping):
        return None
    found: dict[str, int | float] = {}
    for name, number in value.items():
        if len(found) == METRICS_LIMIT:
            break
        if _is_number(number) and abs(number) < _MOST_METRIC:
            is_exact = isinstance(number, float) or abs(number) <= MOST_COUNT
            found[_encodable(str(name))[:NAME_LIMIT]] = number if is_exact else float(number)
    return found


def counts(value: Any) -> tuple[int, ...] | None:
    """Return the valid counts in a list; None if `value` is not a list."""
    found = map(count, value) if isinstance(value, list) else None
    return None if found is None else tuple(number for number in found if number is not None)


def texts(value: Any) -> tuple[str, ...] | None:
    """Return the strings in a list, each cut to TEXT_LIMIT; None if `value` is not a list."""
    found = map(text, value) if isinstance(value, list) else None
    return None if found is None else tuple(word for word in found if word is not None)


_CHECKS: Mapping[Any, Callable[[Any], Any]] = {
    int: count, float: seconds, str: text, bool: flag,
    dict[str, int | float]: numbers, tuple[int, ...]: counts, tuple[str, ...]: texts,
}  # fmt: skip


_checks_by_class: dict[type[Record], Mapping[str, Callable[[Any], Any]]] = {}


def _checks_of(cls: type[Record]) -> Mapping[str, Callable[[Any], Any]]:
    """Return a function for each field: it returns its argument if this has the field's type, else None."""
    if cls not in _checks_by_class:
        _checks_by_class[cls] = {name: _check_of(declared) for name, declared in cls.TYPES.items()}
    return _checks_by_class[cls]


def _check_of(declared: Any) -> Callable[[Any], Any]:
    if declared in _CHECKS:
        return _CHECKS[declared]
    if get_origin(declared) is tuple:
        inner = get_args(declared)[0]
        return lambda value: _records(inner, value)
    return lambda value: read(declared, value) if isinstance(value, Mapping) else None


def _records(cls: type[R], value: Any) -> tuple[R, ...] | None:
    """Return the records in a list, at most RECORDS_LIMIT; None if `value` is not a list."""
    if not isinstance(value, list):
        return None
    return tuple(read(cls, item) for item in value[:RECORDS_LIMIT] if isinstance(item, Mapping))


def _encodable(value: str) -> str:
    """Return `value` with each lone surrogate replaced, because UTF-8 cannot encode it."""
    return value.encode("utf-8", "replace").decode()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)
