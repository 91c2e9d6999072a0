"""spec.json and environment.json, which a user may have damaged: their content is valid, or InvalidSpec."""

from dataclasses import replace
from typing import Any

import pytest

from mosaicd.core.spec import InvalidSpec, Spec, Stdin, environment_of
from mosaicd.protocol.states import Dedup, RunKind

SPEC = Spec(kind=RunKind.COMMAND, name="true", argv=("true",), digest="d" * 64, dedup=Dedup.NEW)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": None}, {"version": "1"}, {"kind": "daemon"}, {"kind": 1}, {"dedup": []},
        {"surprise": 1}, {"limits": {}}, {"limits": [1]}, {"resources": None}, {"resources": {"cpus": "4"}},
        {"resources": {"cpus": 2**70}}, {"resources": {"cpus": 1.5}}, {"priority": 2**70}, {"name": "\ud800"},
        {"argv": []}, {"argv": "true"}, {"argv": ["true", 5]}, {"env_names": None}, {"labels": {"a": 1}},
        {"config": "x"}, {"config": {"metadata": {"worker": {"config": 5}}}}, {"config_flag": "yes"},
        {"signal_to": "all"}, {"signal_to": 1}, {"signal": "STOP"}, {"signal": 15},
        {"stdin": "x"}, {"stdin": {"bytes": 1}}, {"stdin": {"bytes": -1, "sha256": "0" * 64}},
        {"stdin": {"bytes": 1, "sha256": "0"}},
    ],
)  # fmt: skip
def test_an_invalid_spec_json_is_refused(change: Any) -> None:
    """Unknown versions, values and fields, and values of a wrong type raise InvalidSpec."""
    written = SPEC.to_dict() | change
    with pytest.raises(InvalidSpec):
        Spec.from_dict(written)


def test_an_input_is_written_to_spec_json_and_read_back() -> None:
    """spec.json has the size and the digest of the input."""
    spec = replace(SPEC, stdin=Stdin(3, "0" * 64))
    assert spec.to_dict()["stdin"] == {"bytes": 3, "sha256": "0" * 64}
    assert Spec.from_dict(spec.to_dict()) == spec


def test_a_spec_json_without_a_field_is_refused_or_gets_the_default() -> None:
    """A missing field raises InvalidSpec, except a field that has a default."""
    written = SPEC.to_dict()
    required = {"version", "kind", "name", "argv", "digest", "dedup", "resources", "limits", "env_names"}
    for name in written:
        rest = {key: value for key, value in written.items() if key != name}
        if name in required:
            with pytest.raises(InvalidSpec, match=name):
                Spec.from_dict(rest)
        else:
            assert Spec.from_dict(rest) == SPEC, name


@pytest.mark.parametrize("data", [{"A": 1}, {"A": None}, {"A": "\ud800"}])
def test_an_invalid_environment_is_refused(data: Any) -> None:
    """Each variable in environment.json must be text."""
    with pytest.raises(InvalidSpec):
        environment_of(data)
