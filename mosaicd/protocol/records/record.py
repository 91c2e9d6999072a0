"""The mechanism of records: a dataclass to and from a JSON object.

A record is a frozen dataclass that extends `Record`.  Its fields are the keys of the object, in the order
in which they are written.  A field may hold another record, or a tuple, which is a list in JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Self, get_args, get_origin

from mosaicd.protocol import Json


class Record:
    """The base of all records; a subclass is a frozen dataclass with slots."""

    __slots__ = ()

    def to_json(self) -> Json:
        """Return the JSON object of this record."""
        return {name: _plain(getattr(self, name)) for name in _readers(type(self))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record in `data`, which our own program wrote; TypeError where a field is missing.

        Unknown keys are ignored, so a newer writer may add some.
        """
        readers = _readers(cls)
        return cls(**{name: read(data[name]) for name, read in readers.items() if name in data})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else value


_Readers = Mapping[str, Callable[[Any], Any]]
_READERS: dict[type[Record], _Readers] = {}


def _readers(cls: type[Record]) -> _Readers:
    """Return for each field of a record class, in order, the function that reads its value."""
    if cls not in _READERS:
        declared: Any = cls  # a dataclass, as every subclass is
        _READERS[cls] = {field.name: _reader(field.type) for field in fields(declared)}
    return _READERS[cls]


def _reader(declared: Any) -> Callable[[Any], Any]:
    for part in get_args(declared) or (declared,):  # a record, or a record or None
        if isinstance(part, type) and issubclass(part, Record):
            return lambda value: None if value is None else part.from_json(value)
    return tuple if get_origin(declared) is tuple else _same


def _same(value: Any) -> Any:
    return value
