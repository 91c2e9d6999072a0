"""Strict decoding of params into the dataclasses of protocol/messages.

msgspec is fast but stops at the first fault and lets unknown fields of dataclasses pass, so it only
says yes: whatever it refuses is walked again here, to report every fault with its path and its rule.
"""

import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mosaicd.protocol.errors import InvalidParams

T = TypeVar("T")

#: Faults that are told one by one; the message counts them all.
MOST_FAULTS = 100
_INT64 = 1 << 63
_NAMES = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """What a parameter class takes."""

    types: Mapping[str, Any]
    required: tuple[str, ...]
    integers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that the params break, and where."""

    path: str
    rule: str


@cache
def shape_of(cls: type) -> Shape:
    """Return the fields of a parameter class."""
    hints = get_type_hints(cls)
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    integers = [name for name, hint in hints.items() if int in (hint, *get_args(hint))]
    return Shape(hints, tuple(needed), tuple(integers))


def decode(cls: type[T], params: Mapping[str, Any]) -> T:
    """Return `params` as a `cls`; InvalidParams with every fault in `data["errors"]` otherwise."""
    shape: Shape = shape_of(cls)  # type: ignore[arg-type]  # a class is hashable
    if params.keys() <= shape.types.keys() and _fits_64_bits(shape, params):
        try:
            return msgspec.convert(params, type=cls)
        except msgspec.ValidationError as error:
            refusal = str(error)
    else:
        refusal = "the params do not fit"
    raise refused(list(_faults(shape, params)) or [Fault("params", refusal)])


def refused(faults: list[Fault]) -> InvalidParams:
    """Return the error that tells of all `faults`."""
    first = f"{faults[0].path}: {faults[0].rule}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    errors = [{"path": fault.path, "rule": fault.rule} for fault in faults[:MOST_FAULTS]]
    return InvalidParams(first + more, errors=errors)


def at_least(params: Any, low: int, *names: str) -> None:
    """Raise InvalidParams unless each of these parameters is absent or >= `low`."""
    values = ((name, getattr(params, name)) for name in names)
    low_ones = [(name, value) for name, value in values if value is not None and value < low]
    faults = [Fault(name, f"must be at least {low}, not {value}") for name, value in low_ones]
    if faults:
        raise refused(faults)


def _fits_64_bits(shape: Shape, params: Mapping[str, Any]) -> bool:
    values = (params.get(name) for name in shape.integers)
    return all(not isinstance(value, int) or -_INT64 <= value < _INT64 for value in values)


def _faults(shape: Shape, params: Mapping[str, Any]) -> Iterator[Fault]:
    for name in shape.required:
        if name not in params:
            yield Fault(name, "is missing")
    for name, value in params.items():
        if name in shape.types:
            yield from _walk(name, shape.types[name], value)
        else:
            near = difflib.get_close_matches(name[:64], shape.types, 1)
            known = f"did you mean {near[0]}?" if near else f"there are {', '.join(shape.types) or 'none'}"
            yield Fault(name[:64], f"is not a parameter; {known}")


def _walk(path: str, hint: Any, value: Any) -> Iterator[Fault]:
    """Yield every fault of `value` against a type of protocol/messages."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        if value is not None:
            yield from _walk(path, inner[0], value)
    elif origin is Literal:
        if not isinstance(value, str) or value not in args:
            yield Fault(path, f"must be one of {', '.join(args)}")
    elif not _is_a(value, origin or hint):
        yield Fault(path, f"must be {_NAMES[origin or hint]}, not {_shown(value)}")
    elif origin is list:
        for index, item in enumerate(value):
            yield from _walk(f"{path}[{index}]", args[0], item)
    elif origin is dict:
        for key, item in value.items():
            yield from _walk(f"{path}.{key[:64]}", args[1], item)
    elif hint is int and not -_INT64 <= value < _INT64:
        yield Fault(path, "must fit 64 bits")


def _is_a(value: Any, cls: type) -> bool:
    if cls in (int, float):
        allowed = (int, float) if cls is float else (int,)
        return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, cls)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        return msgspec.json.encode(value[:40]).decode()
    return _NAMES[type(value)]
