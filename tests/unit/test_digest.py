"""The digest, by which duplicate submits are found."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.digest import canonical, command_digest, config_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(JSON, st.randoms(use_true_random=False))
def test_key_order_does_not_change_the_digest(value: Any, chance: random.Random) -> None:
    """Keys are sorted at every depth."""
    other = shuffled(value, chance)
    assert canonical(other) == canonical(value)
    metadata = {"a": value, "b": 1}
    assert config_digest({"metadata": metadata}, {}) == config_digest(
        {"metadata": shuffled(metadata, chance)}, {}
    )


@given(JSON, JSON)
def test_different_metadata_have_different_digests(one: Any, other: Any) -> None:
    """Digests are equal exactly if the canonical JSON is equal."""
    same = canonical(one) == canonical(other)
    digests = [config_digest({"metadata": {"x": value}}, {}) for value in (one, other)]
    assert (digests[0] == digests[1]) is same


def test_the_digest_ignores_the_run_id() -> None:
    """run_id is ignored at the top and in the worker's config, not deeper; the config is not changed."""
    config = {
        "metadata": {"worker": {"module": "w", "config": {"run_id": "one", "seed": 1}}},
        "run_id": "one",
    }
    bare = {"metadata": {"worker": {"module": "w", "config": {"seed": 1}}}}
    assert config_digest(config, {}) == config_digest(bare, {})
    assert config["metadata"]["worker"]["config"]["run_id"] == "one"  # type: ignore[index]
    deeper = {"metadata": {"worker": {"module": "w", "config": {"seed": 1, "x": {"run_id": "one"}}}}}
    assert config_digest(deeper, {}) != config_digest(bare, {})


@pytest.mark.parametrize("name", ["CLEANRL_RUN_ID", "XUANCE_RUN_ID", "RUN_ID", "MOSAIC_CPUS", "WORKER_ID"])
def test_the_digest_ignores_variables_that_the_launch_overwrites(name: str) -> None:
    """Only variables that reach the worker unchanged make a difference."""
    assert config_digest({}, {"A": "1", name: "x"}) == config_digest({}, {"A": "1", name: "y"})
    assert config_digest({}, {"A": "1"}) != config_digest({}, {"A": "2"})


def test_the_digest_of_a_command_covers_all_that_changes_its_work() -> None:
    """Arguments, directory, environment, resources and limits count."""
    limits = {"time_limit_s": None}
    first = command_digest(["true"], "/a", {"A": "1", "LANG": "C"}, {"cpus": 1}, limits)
    assert first == command_digest(["true"], "/a", {"LANG": "C", "A": "1"}, {"cpus": 1}, limits)
    same = {"A": "1", "LANG": "C"}
    for other in (
        command_digest(["true", ""], "/a", same, {"cpus": 1}, limits),
        command_digest(["true"], "/b", same, {"cpus": 1}, limits),
        command_digest(["true"], "/a", {"A": "2", "LANG": "C"}, {"cpus": 1}, limits),
        command_digest(["true"], "/a", {"A": "1", "LANG": "de"}, {"cpus": 1}, limits),
        command_digest(["true"], "/a", same, {"cpus": 2}, limits),
        command_digest(["true"], "/a", same, {"cpus": 1}, {"time_limit_s": 5}),
    ):
        assert other != first


def test_the_digest_is_pinned() -> None:
    """Digests are stored and compared across restarts and releases, so this one must never change."""
    assert (
        command_digest(["true"], "/", {}, {"cpus": 1}, {})
        == "3f1577cdbe97af8343e5a09c00e780a0e5a05e569818d6d89d46389a311c8ff0"
    )
