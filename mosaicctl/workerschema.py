"""The check of a worker's config by the JSON Schema of the worker.

Only what the schema surely refuses is a fault: unknown keywords, and keywords whose values make no sense, are
ignored.  `run_id` and `worker_id` need not be given, because the launch adds them.
"""

import re
from collections.abc import Mapping
from typing import Any

from mosaicd.protocol import Json
from mosaicd.protocol.faults import Faults, Path, dotted, shown

_ADDED_BY_LAUNCH = frozenset({"run_id", "worker_id"})
_PLACE: Path = ("metadata", "worker", "config")
#: A schema may refer to itself; deeper levels are not checked.
_MAX_DEPTH = 40


def check_config(schema: Json, config: Json) -> None:
    """Raise InvalidParams with every fault if `schema` refuses the config of a worker."""
    faults = Faults()
    required = schema.get("required")
    if isinstance(required, list):
        schema = {**schema, "required": [name for name in required if name not in _ADDED_BY_LAUNCH]}
    _Check(schema, faults).value(schema, config, _PLACE, 0)
    faults.refuse()


class _Check:
    def __init__(self, root: Json, faults: Faults) -> None:
        self._root = root
        self._faults = faults

    def value(self, schema: Any, value: Any, path: Path, depth: int) -> None:
        """Add a fault for each place where `value`, which is at `path`, breaks `schema`."""
        if schema is False:
            self._faults.add(path, "is not allowed")
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return
        if isinstance(schema.get("$ref"), str):
            self.value(self._referred(schema["$ref"]), value, path, depth + 1)
        if not self._type(schema.get("type"), value, path):
            return
        if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
            self._faults.add(path, f"must be one of {', '.join(_as_json(item) for item in schema['enum'])}")
        if "const" in schema and value != schema["const"]:
            self._faults.add(path, f"must be {_as_json(schema['const'])}")
        self._size(schema, value, path)
        if isinstance(value, dict):
            self._object(schema, value, path, depth)
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.value(schema.get("items"), item, (*path, index), depth + 1)
        self._combined(schema, value, path, depth)

    def _type(self, types: Any, value: Any, path: Path) -> bool:
        """Return whether the type fits; add a fault if it does not."""
        names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
        known = [name for name in names if isinstance(name, str) and name in _TYPES]
        if not known or any(_is_type(name, value) for name in known):
            return True
        self._faults.add(path, f"must be {' or '.join(_TYPES[name] for name in known)}, not {_kind(value)}")
        return False

    def _size(self, schema: Json, value: Any, path: Path) -> None:
        """Check the limits of numbers, and the lengths and the pattern of texts and arrays."""
        if _is_number(value):
            for keyword, words, is_fault in _NUMBER_LIMITS:
                limit = schema.get(keyword)
                if _is_number(limit) and is_fault(value, limit):
                    self._faults.add(path, f"{_as_json(value)} is {words} {_as_json(limit)}")
        if isinstance(value, str | list):
            least, most = _LENGTHS[isinstance(value, str)]
            if _is_number(schema.get(least)) and len(value) < schema[least]:
                self._faults.add(
                    path, "must not be empty" if not value else f"is shorter than {schema[least]}"
                )
            if _is_number(schema.get(most)) and len(value) > schema[most]:
                self._faults.add(path, f"is longer than {schema[most]}")
        pattern = schema.get("pattern")
        if isinstance(value, str) and isinstance(pattern, str) and not _matches(pattern, value):
            self._faults.add(path, f"does not match {pattern}")

    def _object(self, schema: Json, value: Json, path: Path, depth: int) -> None:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        patterns = schema.get("patternProperties")
        patterns = patterns if isinstance(patterns, dict) else {}
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if name not in value:
                self._faults.add((*path, str(name)), "is required")
        for name, item in value.items():
            if name in properties:
                self.value(properties[name], item, (*path, name), depth + 1)
            elif any(_matches(pattern, name) for pattern in patterns):
                continue
            elif schema.get("additionalProperties") is False:
                near = self._faults.similar(name, properties)
                also = f"; did you mean {near}?" if near else ""
                self._faults.add((*path, name), f"is not a value of this worker{also}")
            else:
                self.value(schema.get("additionalProperties"), item, (*path, name), depth + 1)

    def _combined(self, schema: Json, value: Any, path: Path, depth: int) -> None:
        """Check allOf, and that one of anyOf or oneOf accepts the value."""
        every = schema.get("allOf")
        for part in every if isinstance(every, list) else ():
            self.value(part, value, path, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            forms = schema.get(keyword)
            if not isinstance(forms, list) or not forms:
                continue
            found = [self._faults_of(form, value, path, depth) for form in forms]
            if all(faults.count for faults in found):
                best = min(found, key=lambda faults: (_is_about_type(faults, path), faults.count))
                for fault in best.to_list():
                    self._faults.add(fault.path, fault.rule)

    def _faults_of(self, schema: Any, value: Any, path: Path, depth: int) -> Faults:
        faults = Faults()
        _Check(self._root, faults).value(schema, value, path, depth + 1)
        return faults

    def _referred(self, reference: str) -> Any:
        """Return the schema at `#/$defs/NAME`; None for a reference that cannot be followed."""
        node: Any = self._root
        place, _, pointer = reference.partition("#")
        if place:
            return None
        for name in pointer.split("/")[1:]:
            node = node.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        return node


_TYPES: Mapping[str, str] = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "a boolean",
    "object": "an object", "array": "an array", "null": "null",
}  # fmt: skip
_LENGTHS = {True: ("minLength", "maxLength"), False: ("minItems", "maxItems")}
_NUMBER_LIMITS: Any = (
    ("minimum", "less than", lambda value, limit: value < limit),
    ("maximum", "more than", lambda value, limit: value > limit),
    ("exclusiveMinimum", "not more than", lambda value, limit: value <= limit),
    ("exclusiveMaximum", "not less than", lambda value, limit: value >= limit),
)


def _as_json(value: Any) -> str:
    """Return `value` as short JSON."""
    return shown(value) if isinstance(value, str | int | float) else "null" if value is None else "..."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_type(name: str, value: Any) -> bool:
    match name:
        case "integer":
            return _is_number(value) and (isinstance(value, int) or value.is_integer())
        case "number":
            return _is_number(value)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case _:
            return value is None


def _kind(value: Any) -> str:
    """Return the value itself if it is short, else its type."""
    if isinstance(value, str | int | float):
        return shown(value)
    return next(words for name, words in _TYPES.items() if _is_type(name, value))


def _is_about_type(faults: Faults, path: Path) -> bool:
    """Return whether the first fault is that the value itself has the wrong type."""
    first = faults.to_list()[0]
    return first.path == dotted(path) and first.rule.startswith("must be ")


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True
