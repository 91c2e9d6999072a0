"""When a run counts as dead, as its config may say it in metadata.worker.liveness."""

from typing import Any

import pytest

from mosaicd.core.spec import Limits
from tests.unit.test_schema import has_in_order
from tests.unit.test_spec import config, faults_of, form_worker, spec_of

PATIENCE = {"handshake_timeout_s": 5, "start_timeout_s": 90.5, "heartbeat_timeout_s": 600, "stall_s": 0}


@pytest.mark.parametrize("worker", [{}, form_worker()], ids=["command", "worker"])
def test_a_config_says_when_its_run_counts_as_dead(worker: dict[str, Any]) -> None:
    """metadata.worker.liveness has the words of the parameters; null, or not there, says nothing."""
    limits = spec_of(config=config(worker | {"liveness": PATIENCE})).limits
    assert limits == Limits(**PATIENCE)  # type: ignore[arg-type]
    assert limits.stall_s == 0 and limits.grace_s is None
    empty: list[dict[str, Any]] = [{}, {"liveness": None}, {"liveness": {}}, {"liveness": {"stall_s": None}}]
    for nothing in empty:
        assert spec_of(config=config(worker | nothing)).limits == Limits()


def test_a_parameter_wins_over_the_configs_patience() -> None:
    """The flag is the later word, a 0 too; what it does not name stays the config's."""
    given = config(form_worker(liveness=PATIENCE | {"stall_s": 60}))
    limits = spec_of(config=given, stall_s=0, heartbeat_timeout_s=7).limits
    assert limits == Limits(heartbeat_timeout_s=7, handshake_timeout_s=5, start_timeout_s=90.5, stall_s=0)


@pytest.mark.parametrize(
    ("patience", "faults"),
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
def test_patience_that_makes_no_sense_is_refused_with_its_place(patience: Any, faults: Any) -> None:
    """Every fault at once, each with path and rule; a misspelt word is no comment."""
    expected = {f"metadata.worker.liveness.{key}": words for key, words in faults.items()}
    found = faults_of(config=config({"liveness": patience}))
    assert found.keys() == expected.keys()
    assert all(has_in_order(found[path], words) for path, words in expected.items())
    more = faults_of(config=config({"liveness": patience}, run_name=""))
    assert more.keys() == {"run_name", *expected}


@pytest.mark.parametrize("value", [5, "60", [], True])
def test_patience_that_is_no_object_is_refused(value: Any) -> None:
    """The form is checked like the worker's config."""
    (rule,) = faults_of(config=config({"liveness": value})).values()
    assert "object" in rule


def test_more_patience_is_the_same_work() -> None:
    """The digest does not count when a run counts as dead; an empty worker is still no worker."""
    for worker in ({}, form_worker()):
        bare = spec_of(config=config(worker or None)).digest
        assert spec_of(config=config(worker | {"liveness": PATIENCE})).digest == bare
        assert spec_of(config=config(worker or None), stall_s=5).digest == bare
