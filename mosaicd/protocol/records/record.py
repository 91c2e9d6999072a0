"""The mechanism of records: a dataclass to and from a JSON object.

A record is a frozen dataclass that extends `Record`.  Its fields are the keys of the object, in the order
in which they are written.  A field may hold another record, or a tuple, which is a list in JSON.
"""

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_origin

from mosaicd.protocol import Json


class Record:
    """The base of all records; a subclass is a frozen dataclass with slots."""

    __slots__ = ()

    #: Keys that are left out where there is no value; every other key is then null.
    OMITTED: ClassVar[frozenset[str]] = frozenset()

    def to_json(self) -> Json:
        """Return the JSON object of this record."""
        told = {n: v for n, v in self.values().items() if v is not None or n not in self.OMITTED}
        return {name: _plain(value) for name, value in told.items()}

    def values(self) -> dict[str, Any]:
        """Return each field with its value, to make another record from."""
        return {name: getattr(self, name) for name in types_of(type(self))}

    @property
    def has_values(self) -> bool:
        """Whether a record whose fields may all be absent says anything."""
        return self != type(self)()

    def known(self) -> Json:
        """Return the JSON object without the keys that have no value, in this record and in those within."""
        return _without_null(self.to_json())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record in `data`, which our own program wrote; TypeError where a field is missing.

        Unknown keys are ignored, so a newer writer may add some.
        """
        types = types_of(cls)
        return cls(**{name: _read(types[name], data[name]) for name in types if name in data})


_TYPES: dict[type[Record], Mapping[str, Any]] = {}


def types_of(cls: type[Record]) -> Mapping[str, Any]:
    """Return the fields of a record class in order, each with its declared type, where None is left out."""
    if cls not in _TYPES:
        declared: Any = cls  # a dataclass, as every subclass is
        _TYPES[cls] = {field.name: _without_none(field.type) for field in fields(declared)}
    return _TYPES[cls]


def resolve_types(base: type[Record] = Record) -> None:
    """Find the types of every record class that is loaded, so that forked processes share the result."""
    for cls in base.__subclasses__():
        types_of(cls)
        resolve_types(cls)


def is_record(declared: Any) -> bool:
    """Whether a declared type is a record class."""
    return isinstance(declared, type) and issubclass(declared, Record)


def _without_none(declared: Any) -> Any:
    others = [part for part in get_args(declared) if part is not NoneType]
    return others[0] if NoneType in get_args(declared) and len(others) == 1 else declared


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else value


def _without_null(data: Json) -> Json:
    inner = {name: _without_null(value) if isinstance(value, dict) else value for name, value in data.items()}
    return {name: value for name, value in inner.items() if value is not None}


def _read(declared: Any, value: Any) -> Any:
    if value is None:
        return None
    if is_record(declared):
        return declared.from_json(value)
    return tuple(value) if get_origin(declared) is tuple else value
