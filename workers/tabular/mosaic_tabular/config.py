"""The worker's config: one table of fields, which gives the checks, the defaults and the JSON Schema.

`parse` reports every error with its path.  A null learning setting means the preset of the environment;
`with_presets` fills it in, and the `run_started` line has the values that a run used.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

from mosaic_worker import ConfigError, InvalidWorkerConfig, new_run_id

ALGORITHMS = ("q_learning", "sarsa")
MAX_SEED = 2**63 - 1


class Rule(NamedTuple):
    """The legal values of a field; numbers lie within [low, high]."""

    kind: str  # "string" "integer" "number" "boolean" "object"
    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_nullable: bool = False
    excludes_low: bool = False


RULES: dict[str, Rule] = {
    "run_id": Rule("string", "the run's id; mosaicd sets it"),
    "worker_id": Rule("string", "the worker's name in its telemetry", is_nullable=True),
    "env_id": Rule("string", "a Gymnasium environment with discrete observations and actions"),
    "env_kwargs": Rule("object", "arguments of the environment, such as map_name or is_slippery"),
    "algo": Rule("string", "the update rule", choices=ALGORITHMS),
    "episodes": Rule("integer", "stop after this number of episodes", 1, 10**9, is_nullable=True),
    "total_timesteps": Rule("integer", "stop after this number of steps", 1, 10**12, is_nullable=True),
    "max_episode_steps": Rule(
        "integer", "truncate an episode after this number of steps", 1, 10**6, is_nullable=True
    ),
    "seed": Rule(
        "integer", "seed of every random generator; null for a random seed", 0, MAX_SEED, is_nullable=True
    ),
    "learning_rate": Rule("number", "step size of an update", 0, 1, is_nullable=True, excludes_low=True),
    "gamma": Rule("number", "discount of the next step's value", 0, 1, is_nullable=True),
    "epsilon_start": Rule("number", "share of random actions at the start", 0, 1, is_nullable=True),
    "epsilon_end": Rule("number", "share of random actions at the end", 0, 1, is_nullable=True),
    "epsilon_decay_episodes": Rule(
        "integer", "episodes of the linear change from start to end", 0, 10**9, is_nullable=True
    ),
    "step_telemetry": Rule("boolean", "print a telemetry line for every step"),
    "episode_telemetry": Rule(
        "integer", "print a telemetry line for every n-th episode; 0 for none", 0, 10**9
    ),
    "checkpoint_every_episodes": Rule(
        "integer", "save a checkpoint every n-th episode; 0: only at the end", 0, 10**9
    ),
    "keep_checkpoints": Rule("integer", "number of checkpoints to keep", 1, 1000),
    "resume": Rule("string", '"auto" (newest complete checkpoint of this run), "none", or a path'),
    "heartbeat_interval_s": Rule("number", "seconds between heartbeats", 0.01, 3600),
    "step_delay_s": Rule("number", "pause after every step, for watching", 0, 60),
    "episode_delay_s": Rule("number", "pause after every episode, for watching", 0, 60),
}


@dataclass(frozen=True)
class TabularConfig:
    """A checked config; `RULES` describes each field."""

    run_id: str = field(default_factory=new_run_id)
    worker_id: str | None = None
    env_id: str = "Taxi"
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    algo: str = "q_learning"
    episodes: int | None = None
    total_timesteps: int | None = None
    max_episode_steps: int | None = None
    seed: int | None = 1
    learning_rate: float | None = None
    gamma: float | None = None
    epsilon_start: float | None = None
    epsilon_end: float | None = None
    epsilon_decay_episodes: int | None = None
    step_telemetry: bool = False
    episode_telemetry: int = 1
    checkpoint_every_episodes: int = 500
    keep_checkpoints: int = 3
    resume: str = "auto"
    heartbeat_interval_s: float = 10.0
    step_delay_s: float = 0.0
    episode_delay_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that `from_dict` converts to an equal config."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TabularConfig:
        """Return the config; raise InvalidWorkerConfig with every error."""
        config, errors = parse(data)
        if config is None:
            raise InvalidWorkerConfig(errors)
        return config


@dataclass(frozen=True)
class Preset:
    """Default learning settings for a family of environments."""

    episodes: int = 2000
    learning_rate: float = 0.1
    gamma: float = 0.99
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    decay_share: float = 0.5  # of the episodes
    max_episode_steps: int = 500


PRESETS = {
    "Taxi": Preset(
        learning_rate=0.5, epsilon_start=0.3, epsilon_end=0.0, decay_share=0.4, max_episode_steps=200
    ),
    "FrozenLake": Preset(
        episodes=10000, learning_rate=0.1, epsilon_end=0.0, decay_share=0.8, max_episode_steps=100
    ),
    "FrozenLake8x8": Preset(
        episodes=20000,
        learning_rate=0.1,
        gamma=0.999,
        epsilon_end=0.0,
        decay_share=0.8,
        max_episode_steps=200,
    ),
    "CliffWalking": Preset(
        episodes=500,
        learning_rate=0.5,
        epsilon_start=0.1,
        epsilon_end=0.0,
        decay_share=0.8,
        max_episode_steps=500,
    ),
}


def with_presets(config: TabularConfig, family: str) -> TabularConfig:
    """Return `config` with every null learning setting filled in for the environment family `family`."""
    preset = PRESETS.get(family, Preset())
    episodes = config.episodes
    if episodes is None and config.total_timesteps is None:
        episodes = preset.episodes
    filled_in = {
        name: getattr(preset, name)
        for name in ("learning_rate", "gamma", "epsilon_start", "epsilon_end", "max_episode_steps")
        if getattr(config, name) is None
    }
    if config.epsilon_start is not None and config.epsilon_end is None:
        filled_in["epsilon_end"] = min(preset.epsilon_end, config.epsilon_start)
    if config.epsilon_end is not None and config.epsilon_start is None:
        filled_in["epsilon_start"] = max(preset.epsilon_start, config.epsilon_end)
    if config.epsilon_decay_episodes is None:
        filled_in["epsilon_decay_episodes"] = int((episodes or preset.episodes) * preset.decay_share)
    return replace(config, episodes=episodes, **filled_in)


def parse(data: Mapping[str, Any]) -> tuple[TabularConfig | None, list[ConfigError]]:
    """Return the config and no errors, or None and every error."""
    errors: list[ConfigError] = []
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in RULES:
            errors.append(ConfigError(str(name), "unknown key" + _suggestion(str(name))))
            continue
        checked, message = _check(RULES[name], value)
        if message:
            errors.append(ConfigError(name, message))
        else:
            values[name] = checked
    errors += _check_together({**_defaults(), **values})
    return (None, errors) if errors else (TabularConfig(**values), [])


def json_schema() -> dict[str, Any]:
    """Return the config's JSON Schema."""
    defaults = _defaults()
    properties = {}
    for name, rule in RULES.items():
        entry: dict[str, Any] = {"type": [rule.kind, "null"] if rule.is_nullable else rule.kind}
        entry["description"] = rule.doc
        if name in defaults:
            entry["default"] = defaults[name]
        if rule.low is not None:
            entry["exclusiveMinimum" if rule.excludes_low else "minimum"] = rule.low
        if rule.high is not None:
            entry["maximum"] = rule.high
        if rule.kind == "string":
            entry["minLength"] = 1
        if rule.choices:
            entry["enum"] = list(rule.choices)
        properties[name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mosaic_tabular",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _defaults() -> dict[str, Any]:
    config = TabularConfig(run_id="")
    return {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name != "run_id"}


def _check(rule: Rule, value: Any) -> tuple[Any, str]:
    """Return the value as the field stores it, and its error ("" for none)."""
    if value is None:
        return None, "" if rule.is_nullable else f"{_with_article(rule.kind)} is required, not null"
    if rule.kind in ("integer", "number"):
        return _check_number(rule, value)
    expected = {"string": str, "boolean": bool, "object": dict}[rule.kind]
    if not isinstance(value, expected):
        return value, f"{value!r} is not {_with_article(rule.kind)}"
    if rule.kind == "string" and not value:
        return value, "must not be empty"
    if rule.choices and value not in rule.choices:
        return value, f"must be one of {', '.join(rule.choices)}, not {value!r}"
    return value, ""


def _check_number(rule: Rule, value: Any) -> tuple[Any, str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return value, f"{value!r} is not {_with_article(rule.kind)}"
    if rule.kind == "integer":
        if value != int(value):
            return value, f"{value!r} is not {_with_article(rule.kind)}"
        value = int(value)
    else:
        value = float(value)
    if rule.low is not None and (value < rule.low or (rule.excludes_low and value == rule.low)):
        return value, f"{value!r} is {'not more' if rule.excludes_low else 'less'} than {rule.low:g}"
    if rule.high is not None and value > rule.high:
        return value, f"{value!r} is more than the {rule.high:g} allowed"
    return value, ""


def _check_together(values: Mapping[str, Any]) -> list[ConfigError]:
    start, end = values["epsilon_start"], values["epsilon_end"]
    if start is not None and end is not None and end > start:
        return [ConfigError("epsilon_end", f"{end!r} is more than epsilon_start ({start!r})")]
    return []


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, RULES, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
