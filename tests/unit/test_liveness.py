"""Timeouts in metadata.worker.liveness of a config."""

from typing import Any

import pytest

from mosaicd.core.spec import Limits
from tests.unit.test_schema import has_in_order
from tests.unit.test_spec import config, faults_of, form_worker, spec_of

LIVENESS = {"handshake_timeout_s": 5, "start_timeout_s": 90.5, "heartbeat_timeout_s": 600, "stall_s": 0}


@pytest.mark.parametrize("worker", [{}, form_worker()], ids=["command", "worker"])
def test_liveness_in_a_config_sets_the_timeouts(worker: dict[str, Any]) -> None:
    """metadata.worker.liveness has the keys of the submit parameters; null or absent keys set nothing."""
    limits = spec_of(config=config(worker | {"liveness": LIVENESS})).limits
    assert limits == Limits(**LIVENESS)  # type: ignore[arg-type]
    assert limits.stall_s == 0 and limits.grace_s is None
    empty: list[dict[str, Any]] = [{}, {"liveness": None}, {"liveness": {}}, {"liveness": {"stall_s": None}}]
    for nothing in empty:
        assert spec_of(config=config(worker | nothing)).limits == Limits()


def test_a_parameter_wins_over_liveness_in_the_config() -> None:
    """A parameter wins, also with the value 0; the other timeouts stay those of the config."""
    given = config(form_worker(liveness=LIVENESS | {"stall_s": 60}))
    limits = spec_of(config=given, stall_s=0, heartbeat_timeout_s=7).limits
    assert limits == Limits(heartbeat_timeout_s=7, handshake_timeout_s=5, start_timeout_s=90.5, stall_s=0)


@pytest.mark.parametrize(
    ("liveness", "faults"),
    [
        ({"stall_s": "10m"}, {"stall_s": "number string"}),
        ({"stall_s": True}, {"stall_s": "number boolean"}),
        ({"stall_s": -1}, {"stall_s": "-1 less 0"}),
        ({"stall_s": 10**400}, {"stall_s": f"{'1' + '0' * 56}... more 31622400"}),
        ({"heartbeat_timeout_s": 0}, {"heartbeat_timeout_s": "0 more 0"}),
        ({"handshake_timeout_s": 86401}, {"handshake_timeout_s": "86401 more 86400"}),
        ({"start_timeout_s": []}, {"start_timeout_s": "number array"}),
        ({"stal_s": 5}, {"stal_s": "stall_s"}),
        ({"a": 1, "start_timeout_s": 0}, {"a": "not a known key", "start_timeout_s": "0 more 0"}),
    ],
)
def test_invalid_liveness_is_refused_with_its_paths(liveness: Any, faults: Any) -> None:
    """One error lists all faults with path and rule; an unknown key is a fault."""
    expected = {f"metadata.worker.liveness.{key}": words for key, words in faults.items()}
    rules = faults_of(config=config({"liveness": liveness}))
    assert rules.keys() == expected.keys()
    assert all(has_in_order(rules[path], words) for path, words in expected.items())
    more = faults_of(config=config({"liveness": liveness}, run_name=""))
    assert more.keys() == {"run_name", *expected}


@pytest.mark.parametrize("value", [5, "60", [], True])
def test_liveness_that_is_no_object_is_refused(value: Any) -> None:
    """The rule says that liveness must be an object."""
    (rule,) = faults_of(config=config({"liveness": value})).values()
    assert "object" in rule


def test_liveness_does_not_change_the_digest() -> None:
    """Timeouts are not part of the digest, neither in the config nor as parameters."""
    for worker in ({}, form_worker()):
        bare = spec_of(config=config(worker or None)).digest
        assert spec_of(config=config(worker | {"liveness": LIVENESS})).digest == bare
        assert spec_of(config=config(worker or None), stall_s=5).digest == bare
