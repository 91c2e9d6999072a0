"""The base class of records: a record has typed fields and is converted to and from a JSON object.

A record class lists its fields with their types and defaults, as a dataclass does; all arguments are keyword
arguments.  The fields are the keys of the object, in the order in which they are written.  A field may hold
another record, or a tuple, which is a list in JSON.

Note: records are not dataclasses.  Python generates methods for each dataclass; these would add 0.7 MB to the
launcher and to each shim.
"""

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, ClassVar, Self, dataclass_transform, get_args, get_origin

from mosaicd.protocol import Json


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """The base of all records.  A record never changes; `changed` returns another one."""

    #: Keys that are left out if their value is None; all other keys are then null.
    OMITTED: ClassVar[frozenset[str]] = frozenset()
    #: The type of each field, without `| None`, in order.
    TYPES: ClassVar[Mapping[str, Any]] = {}
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    #: The functions that read the fields whose JSON form differs (records and tuples).
    _READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    def __init_subclass__(cls) -> None:
        declared = {name: kind for name, kind in cls.__annotations__.items() if not _is_class_variable(kind)}
        cls.TYPES = {name: _without_none(kind) for name, kind in declared.items()}
        cls.DEFAULTS = {name: vars(cls)[name] for name in declared if name in vars(cls)}
        readers = {name: _reader(kind) for name, kind in cls.TYPES.items()}
        cls._READERS = {name: read for name, read in readers.items() if read is not None}

    def __init__(self, **values: Any) -> None:
        """Make a record of these fields; raise TypeError for a missing or unknown field."""
        if len(values) != len(self.TYPES):
            values = {**self.DEFAULTS, **values}
        if values.keys() != self.TYPES.keys():
            names = ", ".join(sorted(values.keys() ^ self.TYPES.keys()))
            raise TypeError(f"{type(self).__name__}: missing or unknown fields: {names}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # a record may hold a dictionary

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.values().items())})"

    def changed(self, **values: Any) -> Self:
        """Return a copy of this record with these values."""
        return type(self)(**{**self.__dict__, **values})

    def values(self) -> dict[str, Any]:
        """Return the fields with their values; nested records stay records."""
        return {name: self.__dict__[name] for name in self.TYPES}

    @property
    def has_values(self) -> bool:
        """Whether any field differs from its default; for records whose fields all have defaults."""
        return self.__dict__ != self.DEFAULTS

    def to_json(self) -> Json:
        """Return the JSON object of this record."""
        data = self.values()
        for name in self._READERS:
            data[name] = _to_json(data[name])
        for name in self.OMITTED:
            if data[name] is None:
                del data[name]
        return data

    def known(self) -> Json:
        """Return the JSON object without keys that are null, also in nested objects."""
        return _without_null(self.to_json())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record in `data`, which mosaicd wrote; raise TypeError for a missing field.

        Unknown keys are ignored, so a newer version may add keys.
        """
        values = {name: value for name, value in data.items() if name in cls.TYPES}
        for name, read in cls._READERS.items():
            if values.get(name) is not None:
                values[name] = read(values[name])
        return cls(**values)


def is_record(declared: Any) -> bool:
    """Return whether a declared type is a record class."""
    return isinstance(declared, type) and issubclass(declared, Record)


def _is_class_variable(declared: Any) -> bool:
    return ClassVar in (declared, get_origin(declared))


def _without_none(declared: Any) -> Any:
    """Return the type T for `T | None`; any other type unchanged."""
    others = [part for part in get_args(declared) if part is not NoneType]
    return others[0] if NoneType in get_args(declared) and len(others) == 1 else declared


def _reader(declared: Any) -> Callable[[Any], Any] | None:
    """Return the function that converts the JSON form of a field of this type, or None."""
    if is_record(declared):
        read: Callable[[Any], Any] = declared.from_json
        return read
    if get_origin(declared) is not tuple:
        return None
    inner = _reader(get_args(declared)[0])
    return tuple if inner is None else lambda items: tuple(map(inner, items))


def _to_json(value: Any) -> Any:
    """Return an inner record as a JSON object, a tuple as a list, and every other value unchanged."""
    if isinstance(value, Record):
        return value.to_json()
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


def _without_null(data: Json) -> Json:
    inner = {name: _without_null(value) if isinstance(value, dict) else value for name, value in data.items()}
    return {name: value for name, value in inner.items() if value is not None}
