"""The schema of TrainRunConfig, and the checks that find every fault of a config.

The verdict is the same as that of a JSON Schema validator (Draft 2020-12), at a fraction of its cost.
Rules that the schema does not have (texts that exec accepts, the depth of JSON) are in `check_json` and in
`core.params`.

Note: a default does not make a key optional (`arguments`, `environment` and `artifacts` are required *and*
have a default), `true` is no integer but `1.0` is, and lengths count characters, not bytes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from mosaicd.protocol import Json
from mosaicd.protocol.faults import Faults, Path, shown

MAX_DEPTH = 64

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A string of `least`..`most` characters."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer in a range; 1.0 is an integer, true is not."""

    least: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in a range; without `closed`, `least` itself is not in the range."""

    least: int
    most: int
    closed: bool = True


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    default: bool


@dataclass(frozen=True, slots=True)
class Texts:
    """An array of strings."""


@dataclass(frozen=True, slots=True)
class TextMap:
    """An object with any keys, whose values are strings."""


@dataclass(frozen=True, slots=True)
class Free:
    """An object that may hold anything."""


@dataclass(frozen=True, slots=True)
class Nullable:
    """A value of this rule, or null."""

    rule: "Rule"


@dataclass(frozen=True, slots=True)
class Record:
    """An object with these keys and no others."""

    fields: Mapping[str, "Rule"]
    required: frozenset[str] = field(default_factory=frozenset)


Rule = Text | Whole | Number | Flag | Texts | TextMap | Free | Nullable | Record

TRAIN_RUN_CONFIG = Record(
    {
        "run_name": Text(1, 120),
        "entry_point": Text(1),
        "arguments": Texts(),
        "environment": TextMap(),
        "resources": Record(
            {
                "cpus": Whole(1),
                "memory_mb": Whole(256),
                "gpus": Record(
                    {"requested": Whole(0, 8), "mandatory": Flag(False)}, frozenset({"requested"})
                ),
            },
            frozenset({"cpus", "gpus"}),
        ),
        "artifacts": Record(
            {"output_prefix": Text(1), "persist_logs": Flag(True), "keep_checkpoints": Flag(True)}
        ),
        "metadata": Free(),
        "schedule": Record({"max_duration_seconds": Whole(1), "max_steps": Whole(1)}),
    },
    frozenset({"run_name", "entry_point", "arguments", "environment", "resources", "artifacts"}),
)


def check(config: object, faults: Faults) -> None:
    """Add a fault for each place where `config` breaks the schema of TrainRunConfig."""
    check_rule(TRAIN_RUN_CONFIG, config, (), faults)


def filled(config: Mapping[str, Any]) -> Json:
    """Return a valid config with defaults in place and integral floats as integers; shares `metadata`."""
    return filled_record(TRAIN_RUN_CONFIG, config)


def filled_record(rule: Record, value: Mapping[str, Any]) -> Json:
    """Return a valid value of `rule` with defaults in place and integral floats as integers."""
    whole = _filled(rule, value)
    assert isinstance(whole, dict)
    return whole


def check_json(value: object, faults: Faults) -> None:
    """Add a fault for each NaN, lone surrogate, type that JSON lacks, and nesting deeper than MAX_DEPTH."""
    waiting: list[tuple[Path, object]] = [((), value)]
    while waiting:  # not recursive: the sender chooses the depth
        path, item = waiting.pop()
        if isinstance(item, str):
            check_unicode(item, path, faults)
        elif isinstance(item, float):
            if not math.isfinite(item):
                faults.add(path, f"must be a finite number, not {item}")
        elif isinstance(item, dict | list):
            if len(path) >= MAX_DEPTH:
                faults.add(path, f"is nested deeper than {MAX_DEPTH} levels")
                continue
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            inner = [((*path, key), child) for key, child in pairs]
            if isinstance(item, dict) and any(_LONE_SURROGATE.search(str(key)) for key in item):
                faults.add(path, "has a key that is not valid Unicode (a lone surrogate)")
            waiting.extend(reversed(inner))
        elif item is not None and not isinstance(item, bool | int):
            faults.add(path, f"must be a JSON value, not {type(item).__name__}")


def check_unicode(text: str, path: Path, faults: Faults) -> None:
    """Add a fault where `text` could not be encoded as UTF-8."""
    if not text.isascii() and _LONE_SURROGATE.search(text):
        faults.add(path, "is not valid Unicode (a lone surrogate)")


def kind_name(value: object) -> str:
    """Return the JSON type of `value` with its article: "a string", "an object"."""
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return "null" if value is None else f"a {type(value).__name__}"


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a number"),
    (list, "an array"),
    (dict, "an object"),
)


def is_whole(value: object) -> bool:
    """Return whether `value` is an integer for JSON Schema."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def check_rule(rule: Rule, value: object, path: Path, faults: Faults) -> None:
    """Add a fault for each place where `value`, which is at `path`, breaks `rule`."""
    match rule:
        case Text():
            check_text(value, path, faults, rule.least, rule.most)
        case Whole():
            _check_whole(rule, value, path, faults)
        case Number():
            _check_number(rule, value, path, faults)
        case Flag():
            if not isinstance(value, bool):
                faults.add(path, f"must be a boolean, not {kind_name(value)}")
        case Texts():
            if not isinstance(value, list):
                faults.add(path, f"must be an array, not {kind_name(value)}")
                return
            for index, item in enumerate(value):
                check_text(item, (*path, index), faults)
        case TextMap():
            if not isinstance(value, dict):
                faults.add(path, f"must be an object, not {kind_name(value)}")
                return
            for key, item in value.items():
                check_text(item, (*path, key), faults)
        case Free():
            if not isinstance(value, dict):
                faults.add(path, f"must be an object, not {kind_name(value)}")
        case Nullable():
            if value is not None:
                check_rule(rule.rule, value, path, faults)
        case Record():
            _check_record(rule, value, path, faults)
        case _:
            assert_never(rule)


def check_text(value: object, path: Path, faults: Faults, least: int = 0, most: int | None = None) -> None:
    """Add a fault unless `value` is a string of `least`..`most` characters."""
    if not isinstance(value, str):
        faults.add(path, f"must be a string, not {kind_name(value)}")
    elif len(value) < least:
        faults.add(path, "must not be empty" if least == 1 else f"is shorter than {least} characters")
    elif most is not None and len(value) > most:
        faults.add(path, f"{len(value)} characters are more than the {most} allowed")


def _check_whole(rule: Whole, value: object, path: Path, faults: Faults) -> None:
    if not isinstance(value, int | float) or not is_whole(value):
        given = shown(value) if isinstance(value, float) else kind_name(value)
        faults.add(path, f"must be an integer, not {given}")
    elif value < rule.least:
        faults.add(path, f"{shown(value)} is less than the {rule.least} allowed")
    elif rule.most is not None and value > rule.most:
        faults.add(path, f"{shown(value)} is more than the {rule.most} allowed")


def _check_number(rule: Number, value: object, path: Path, faults: Faults) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        faults.add(path, f"must be a number, not {kind_name(value)}")
    elif isinstance(value, float) and not math.isfinite(value):  # an integer may be too large to ask
        faults.add(path, f"must be a finite number, not {value}")
    elif value > rule.most:
        faults.add(path, f"{shown(value)} is more than the {rule.most} allowed")
    elif value < rule.least and rule.closed:
        faults.add(path, f"{shown(value)} is less than the {rule.least} allowed")
    elif value < rule.least or (value == rule.least and not rule.closed):
        faults.add(path, f"{shown(value)} must be more than {rule.least}")


def _check_record(rule: Record, value: object, path: Path, faults: Faults) -> None:
    if not isinstance(value, dict):
        faults.add(path, f"must be an object, not {kind_name(value)}")
        return
    for key in sorted(rule.required - value.keys()):
        faults.add((*path, key), "is required")
    for key, item in value.items():
        inner = rule.fields.get(key)
        if inner is None:
            faults.add((*path, key), _unknown(key, rule, faults))
        else:
            check_rule(inner, item, (*path, key), faults)


def _unknown(key: str, rule: Record, faults: Faults) -> str:
    near = faults.similar(key, rule.fields)
    return f"is not a known key; did you mean {near}?" if near else "is not a known key"


def _filled(rule: Rule, value: Any) -> Any:
    match rule:
        case Whole():
            return int(value)
        case Texts():
            return list(value)
        case TextMap():
            return dict(value)
        case Nullable():
            return None if value is None else _filled(rule.rule, value)
        case Record():
            return {
                key: _filled(inner, value[key] if key in value else _default(inner))
                for key, inner in rule.fields.items()
                if key in value or _default(inner) is not None
            }
        case _:
            return value


def _default(rule: Rule) -> Any:
    match rule:
        case Flag():
            return rule.default
        case Texts():
            return []
        case TextMap() | Free() | Record():
            return {}
        case _:
            return None
