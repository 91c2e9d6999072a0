"""The check of a TrainRunConfig, compared with a JSON Schema validator."""

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mosaicd.core.schema import MAX_DEPTH, check, check_json, filled
from mosaicd.protocol.errors import InvalidParams
from mosaicd.protocol.faults import MAX_FAULTS, Faults, dotted

# The same rules as in core/schema, written a second time as a JSON Schema.
WHOLE = {"type": "integer", "minimum": 1}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["run_name", "entry_point", "arguments", "environment", "resources", "artifacts"],
    "properties": {
        "run_name": {"type": "string", "minLength": 1, "maxLength": 120},
        "entry_point": {"type": "string", "minLength": 1},
        "arguments": {"type": "array", "items": {"type": "string"}, "default": []},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "required": ["cpus", "gpus"],
            "properties": {
                "cpus": WHOLE,
                "memory_mb": {"type": "integer", "minimum": 256},
                "gpus": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["requested"],
                    "properties": {
                        "requested": {"type": "integer", "minimum": 0, "maximum": 8},
                        "mandatory": {"type": "boolean", "default": False},
                    },
                },
            },
        },
        "artifacts": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "output_prefix": {"type": "string", "minLength": 1},
                "persist_logs": {"type": "boolean", "default": True},
                "keep_checkpoints": {"type": "boolean", "default": True},
            },
            "default": {},
        },
        "metadata": {"type": "object", "default": {}},
        "schedule": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"max_duration_seconds": WHOLE, "max_steps": WHOLE},
        },
    },
}
VALIDATOR = Draft202012Validator(SCHEMA)


def config() -> dict[str, Any]:
    return {
        "run_name": "taxi-q-learning",
        "entry_point": "python",
        "arguments": ["-m", "tabular_worker"],
        "environment": {"TRACK": "0"},
        "resources": {"cpus": 4, "memory_mb": 2048, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {"output_prefix": "runs/taxi", "persist_logs": True, "keep_checkpoints": False},
        "metadata": {"ui": {"algo": "q"}, "worker": {"module": "tabular_worker", "config": {"seed": 1}}},
        "schedule": {"max_duration_seconds": 60, "max_steps": 1000},
    }


def our_paths(value: object) -> set[str]:
    faults = Faults()
    check(value, faults)
    assert faults.count <= MAX_FAULTS, "too many to compare"
    return {fault["path"] for fault in faults.to_dicts()}


def validator_paths(value: Any) -> set[str]:
    """Return the paths of the validator's errors, with the key itself for a missing or unknown key."""
    paths = set()
    for error in VALIDATOR.iter_errors(value):
        at = tuple(error.absolute_path)
        if error.validator == "required":
            paths |= {dotted((*at, key)) for key in error.validator_value if key not in error.instance}
        elif error.validator == "additionalProperties" and error.schema["additionalProperties"] is False:
            paths |= {dotted((*at, key)) for key in error.instance if key not in error.schema["properties"]}
        else:
            paths.add(dotted(at))
    return paths


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*at, key))
    return found


KEYS = st.sampled_from(
    ["cpus", "gpus", "requested", "run_name", "schedule", "max_steps", "x", "a.b", "", "ü"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from([0.5, 1.0, 8.0, 9.0, 255.9, 256.0, 1e300, "", "x", "y" * 120, "z" * 121, "é" * 120])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """Draw a config with one to six changes: a value replaced, a key dropped or added, an item added."""
    value: Any = config()
    for _ in range(draw(st.integers(1, 6))):
        if not isinstance(value, dict):
            break
        *path, last = draw(st.sampled_from([place for place in places(value) if place]))
        parent: Any = value
        for key in path:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "drop", "add"]))
        if how == "replace":
            parent[last] = draw(VALUES)
        elif how == "drop":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(KEYS)] = draw(VALUES)
        else:
            parent.append(draw(VALUES))
        if not places(value)[1:]:
            break
    return value


@given(broken() | VALUES)
@example(config())
@example({})
@example([])
def test_faults_have_the_same_paths_as_in_a_json_schema_validator(value: Any) -> None:
    """The check finds the same faults as a JSON Schema validator and does not change the config."""
    before = copy.deepcopy(value)
    assert our_paths(value) == validator_paths(value)
    assert value == before


def has_in_order(sentence: str, words: str) -> bool:
    """Return whether the sentence has all words in this order."""
    return re.search(".*".join(map(re.escape, words.split())), sentence) is not None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("resources.gpus.requested", 9, "9 more 8"),
        ("resources.gpus.mandatory", 1, "boolean integer"),
        ("resources.cpus", True, "integer boolean"),
        ("resources.cpus", 1.5, "integer 1.5"),
        ("resources.cpus", "4", "integer string"),
        ("resources.memory_mb", 255, "255 less 256"),
        ("resources.cpu", 1, "cpus"),
        ("run_name", "n" * 121, "121 more 120"),
        ("run_name", "", "empty"),
        ("entry_point", None, "string null"),
        ("arguments", "-m", "array string"),
        ("environment", [], "object array"),
        ("schedule.max_steps", 0, "0 less 1"),
        ("metadata", [], "object array"),
    ],
)
def test_a_fault_has_its_path_and_the_rule(path: str, value: object, words: str) -> None:
    """The rule of a fault has the value or its type, and the allowed values."""
    full_config = config()
    *parents, last = path.split(".")
    parent = full_config
    for key in parents:
        parent = parent[key]
    parent[last] = value
    faults = Faults()
    check(full_config, faults)
    [fault] = faults.to_dicts()
    assert fault["path"] == path and has_in_order(fault["rule"], words)


def test_array_items_and_odd_keys_have_readable_paths() -> None:
    """Items of arrays are written [i]; keys that are no plain words are quoted."""
    full_config = config() | {"arguments": ["a", 2], "environment": {"A.B": 1}}
    assert our_paths(full_config) == {"arguments[1]", 'environment["A.B"]'}


def test_metadata_and_environment_take_any_key() -> None:
    """Unknown keys are allowed in metadata and environment only."""
    full_config = config() | {
        "metadata": {"anything": [{"at": {"all": None}}]},
        "environment": {"any": "thing"},
    }
    assert our_paths(full_config) == set()


def test_defaults_are_filled_in_and_integral_floats_become_integers() -> None:
    """1.0, an integer in JSON Schema, becomes 1; the original config is not changed."""
    full_config = config()
    full_config["resources"] = {"cpus": 1.0, "memory_mb": 256.0, "gpus": {"requested": 0}}
    full_config["artifacts"] = {}
    del full_config["metadata"], full_config["schedule"]
    before = copy.deepcopy(full_config)
    full = filled(full_config)
    assert full["resources"] == {"cpus": 1, "memory_mb": 256, "gpus": {"requested": 0, "mandatory": False}}
    assert json.dumps(full["resources"]["cpus"]) == "1"
    assert full["artifacts"] == {"persist_logs": True, "keep_checkpoints": True}
    assert full["metadata"] == {} and full["schedule"] == {}
    assert full_config == before


def test_only_the_first_faults_are_listed_and_all_are_counted() -> None:
    """The list is bounded, and its last entry has the number of further faults."""
    full_config = config() | {f"k{n}": 1 for n in range(5000)}
    faults = Faults()
    check(full_config, faults)
    assert faults.count == 5000
    assert len(faults.to_dicts()) == MAX_FAULTS + 1
    assert faults.to_dicts()[-1] == {"path": "", "rule": f"and {5000 - MAX_FAULTS} more faults"}


def test_refuse_raises_all_faults_at_once() -> None:
    """The data of the error has every fault; the message has the first fault and the number of others."""
    faults = Faults()
    faults.refuse()
    faults.add(("a", 0), "is wrong")
    faults.add((), "is worse")
    with pytest.raises(InvalidParams, match=r"a\[0\]: is wrong \(and 1 more\)") as caught:
        faults.refuse()
    errors = [{"path": "a[0]", "rule": "is wrong"}, {"path": "", "rule": "is worse"}]
    assert caught.value.data == {"errors": errors}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [0.5, float("nan")]}, "a[1]"),
        ({"a": float("inf")}, "a"),
        ({"a": "\ud800"}, "a"),
        ({"\udfff": 1}, ""),
        ({"a": {"b": {1, 2}}}, "a.b"),
    ],
)
def test_values_that_json_cannot_represent_are_refused(value: object, path: str) -> None:
    """NaN, infinity, lone surrogates and other types are faults."""
    faults = Faults()
    check_json(value, faults)
    assert [fault["path"] for fault in faults.to_dicts()] == [path]


def test_deep_nesting_is_refused_without_recursion() -> None:
    """A value nested 100,000 deep is a fault and does not exhaust the stack."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    faults = Faults()
    check_json({"metadata": value}, faults)
    [fault] = faults.to_dicts()
    assert str(MAX_DEPTH) in fault["rule"]
    while value:  # otherwise its deallocation would recurse
        value = value.pop()
