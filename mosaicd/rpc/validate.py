"""Decode params strictly into the dataclasses of protocol/messages.

msgspec is fast, but it stops at the first fault and accepts unknown fields of dataclasses.  So params that
it refuses are checked again here, to report every fault with its path and its rule.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mosaicd.protocol.faults import Faults, Path
from mosaicd.protocol.records.record import Record

T = TypeVar("T")

_INT64 = 1 << 63
_NAMES = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """The parameters of a class: their types, the required ones, and the integers."""

    types: Mapping[str, Any]
    required: tuple[str, ...]
    integers: tuple[str, ...]


@cache
def dataclass_of(cls: type) -> type:
    """Return the class that msgspec decodes into: `cls`, or for a record a dataclass with its fields."""
    if not issubclass(cls, Record):
        return cls
    defaults = {name: (field(default=value),) for name, value in cls.DEFAULTS.items()}
    described = [(name, cls.__annotations__[name], *defaults.get(name, ())) for name in cls.TYPES]
    return make_dataclass(cls.__name__, described, namespace={"__doc__": cls.__doc__}, kw_only=True)


@cache
def shape_of(cls: type) -> Shape:
    """Return the fields of a parameter class."""
    hints = get_type_hints(cls)
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    integers = [name for name, hint in hints.items() if int in (hint, *get_args(hint))]
    return Shape(hints, tuple(needed), tuple(integers))


def decode(cls: type[T], params: Mapping[str, Any]) -> T:
    """Return `params` as a `cls`; raise InvalidParams with every fault in `data["errors"]`."""
    decoded = dataclass_of(cls)  # type: ignore[arg-type]  # a class is hashable
    shape = shape_of(decoded)
    if params.keys() <= shape.types.keys() and _fits_64_bits(shape, params):
        try:
            value: Any = msgspec.convert(params, type=decoded)
            return value if decoded is cls else cls(**{name: getattr(value, name) for name in shape.types})
        except msgspec.ValidationError as error:
            refusal = str(error)
    else:
        refusal = "the params do not fit"
    faults = Faults()
    _check_params(shape, params, faults)
    if not faults.count:
        faults.add(("params",), refusal)
    raise faults.error()


def at_least(params: Any, low: int, *names: str) -> None:
    """Raise InvalidParams unless each of these parameters is absent or >= `low`."""
    faults = Faults()
    for name in names:
        value = getattr(params, name)
        if value is not None and value < low:
            faults.add((name,), f"must be at least {low}, not {value}")
    faults.refuse()


def _fits_64_bits(shape: Shape, params: Mapping[str, Any]) -> bool:
    values = (params.get(name) for name in shape.integers)
    return all(not isinstance(value, int) or -_INT64 <= value < _INT64 for value in values)


def _check_params(shape: Shape, params: Mapping[str, Any], faults: Faults) -> None:
    """Add every fault of `params`."""
    for name in shape.required:
        if name not in params:
            faults.add((name,), "is missing")
    for name, value in params.items():
        if name in shape.types:
            _check_value((name,), shape.types[name], value, faults)
        else:
            near = faults.similar(name, shape.types)
            known = f"did you mean {near}?" if near else f"there are {', '.join(shape.types) or 'none'}"
            faults.add((name,), f"is not a parameter; {known}")


def _check_value(path: Path, hint: Any, value: Any, faults: Faults) -> None:
    """Add every fault of `value`; `hint` is its declared type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        if value is not None:
            _check_value(path, inner[0], value, faults)
    elif origin is Literal:
        if not isinstance(value, str) or value not in args:
            faults.add(path, f"must be one of {', '.join(args)}")
    elif not _is_a(value, origin or hint):
        faults.add(path, f"must be {_NAMES[origin or hint]}, not {_shown(value)}")
    elif origin is list:
        for index, item in enumerate(value):
            _check_value((*path, index), args[0], item, faults)
    elif origin is dict:
        for key, item in value.items():
            _check_value((*path, key), args[1], item, faults)
    elif hint is int and not -_INT64 <= value < _INT64:
        faults.add(path, "must fit into 64 bits")


def _is_a(value: object, cls: type) -> bool:
    """Return whether a JSON value is of the type; an integer is a number too, a boolean is not."""
    if cls in (int, float):
        allowed = (int, float) if cls is float else (int,)
        return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, cls)


def _shown(value: object) -> str:
    """Return a JSON value for an error message, shortened; of a list or an object only its type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        return msgspec.json.encode(value[:40]).decode()
    return _NAMES[type(value)]
