"""Worker configs: flat and nested forms, and all errors with their paths."""

import json
from pathlib import Path
from typing import Any

import pytest
from mosaic_tabular import get_config_schema
from mosaic_tabular.config import PRESETS, TabularConfig, with_presets
from mosaic_worker import (
    InvalidWorkerConfig,
    WorkerConfig,
    WorkerEnvironment,
    extract_worker_config,
    load_worker_config_from_file,
)

FLAT = {"run_id": "r", "env_id": "Taxi", "seed": 3}


@pytest.mark.parametrize(
    "data", [FLAT, {"run_name": "x", "metadata": {"worker": {"module": "m", "config": FLAT}}}]
)
def test_flat_and_nested_configs_are_read(data: dict[str, Any], tmp_path: Path) -> None:
    """A nested run config is unwrapped; a flat one is used as it is; a byte-order mark is accepted."""
    path = tmp_path / "config.json"
    path.write_text("\ufeff" + json.dumps(data), encoding="utf-8")
    assert load_worker_config_from_file(path) == FLAT


def test_metadata_alone_does_not_make_a_config_nested() -> None:
    """A config whose `metadata` has no worker.config counts as flat."""
    data = {"run_id": "r", "metadata": {"worker": {"module": "m"}}}
    assert extract_worker_config(data) == data


@pytest.mark.parametrize(("text", "reason"), [("{", "not JSON"), ("[1]", "must be an object, not list")])
def test_unreadable_config_file_is_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    """A file that is missing, not JSON or not an object gives one error with the reason."""
    path = tmp_path / "config.json"
    with pytest.raises(InvalidWorkerConfig, match="No such file"):
        load_worker_config_from_file(path)
    path.write_text(text)
    with pytest.raises(InvalidWorkerConfig, match=reason):
        load_worker_config_from_file(path)


BROKEN: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"gama": 0.9}, {"gama": "unknown key; did you mean gamma?"}),
    ({"episodes": 0}, {"episodes": "0 is less than 1"}),
    ({"episodes": 1.5}, {"episodes": "1.5 is not an integer"}),
    ({"episodes": True}, {"episodes": "True is not an integer"}),
    ({"seed": "1"}, {"seed": "'1' is not an integer"}),
    ({"algo": "dqn"}, {"algo": "must be one of q_learning, sarsa, not 'dqn'"}),
    ({"learning_rate": 0}, {"learning_rate": "0.0 is not more than 0"}),
    ({"learning_rate": float("nan")}, {"learning_rate": "nan is not a number"}),
    ({"env_kwargs": []}, {"env_kwargs": "[] is not an object"}),
    ({"env_id": ""}, {"env_id": "must not be empty"}),
    ({"algo": None}, {"algo": "a string is required, not null"}),
    ({"epsilon_start": 0.1, "epsilon_end": 0.5}, {"epsilon_end": "0.5 is more than epsilon_start (0.1)"}),
    (
        {"step_telemetry": 1, "gamma": 2},
        {"step_telemetry": "1 is not a boolean", "gamma": "2.0 is more than the 1 allowed"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "errors"), BROKEN)
def test_each_error_names_key_and_rule(data: dict[str, Any], errors: dict[str, str]) -> None:
    """Each error names the key and the rule."""
    with pytest.raises(InvalidWorkerConfig) as caught:
        TabularConfig.from_dict(data)
    assert dict(caught.value.errors) == errors


def test_all_errors_are_reported_together() -> None:
    """A config with many errors is refused with all of them together."""
    data: dict[str, Any] = {}
    expected: dict[str, str] = {}
    for broken, errors in BROKEN:
        if not expected.keys() & broken.keys():
            data |= broken
            expected |= errors
    with pytest.raises(InvalidWorkerConfig) as caught:
        TabularConfig.from_dict(data)
    assert dict(caught.value.errors) == expected


def test_config_round_trips_through_a_dict() -> None:
    """from_dict reads what to_dict writes, and accepts a float without fraction as an integer."""
    config = TabularConfig.from_dict({"run_id": "r", "episodes": 20.0, "gamma": 1})
    assert isinstance(config, WorkerConfig)
    assert config.episodes == 20
    assert TabularConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("family", [*PRESETS, "Unknown"])
def test_presets_fill_only_null_settings(family: str) -> None:
    """Presets fill every null learning setting and keep given values; total_timesteps needs no episodes."""
    full = with_presets(TabularConfig(gamma=0.5), family)
    assert full.gamma == 0.5
    assert None not in (full.learning_rate, full.epsilon_start, full.epsilon_end, full.epsilon_decay_episodes)
    assert full.episodes is not None
    assert with_presets(TabularConfig(total_timesteps=10), family).episodes is None
    bounded = with_presets(TabularConfig(epsilon_start=0.01), family)
    assert bounded.epsilon_end is not None
    assert bounded.epsilon_end <= 0.01


def test_schema_and_parser_agree() -> None:
    """The published JSON Schema accepts the defaults and refuses the configs that the parser refuses."""
    jsonschema = pytest.importorskip("jsonschema")  # installed as a dependency of jsonrpcserver
    schema = get_config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(TabularConfig().to_dict())
    for data, _ in BROKEN:
        if "epsilon_end" not in data and not any(value != value for value in data.values()):
            assert not validator.is_valid(data), data


def test_variables_of_mosaicd_are_decoded() -> None:
    """mosaicd's variables are decoded; a variable that is absent or not a number is None."""
    assert WorkerEnvironment.from_environ({}) == WorkerEnvironment()
    env = WorkerEnvironment.from_environ(
        {"MOSAIC_RUN_ID": "r", "MOSAIC_RUN_DIR": "/d", "MOSAIC_ATTEMPT": "2", "MOSAIC_CONTROL_FD": "x"}
    )
    assert (env.run_id, env.run_dir, env.attempt, env.control_fd) == ("r", Path("/d"), 2, None)
