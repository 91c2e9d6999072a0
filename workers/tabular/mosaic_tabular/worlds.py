"""The environment for an `env_id`, with a fast `reset` and `step`.

Gymnasium's toy-text environments keep their dynamics in a table `P`.  For those, `TableWorld` draws from the
environment's own generator in the same order, so its trajectories equal Gymnasium's bit for bit, about ten
times as fast (a test compares them).  All other environments use their own `step` (`GymWorld`).
Note: the trainer counts time limits; no wrapper does.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from mosaic_worker import ConfigError

from mosaic_tabular.uniforms import Uniforms

Transition = tuple[int, float, bool]

_ID = re.compile(r"(?:(?P<space>[\w:.-]+)/)?(?P<name>[\w:.-]+?)(?:-v(?P<version>\d+))?\Z")
_TABLE_CLASSES = ("TaxiEnv", "FrozenLakeEnv", "CliffWalkingEnv")


class World(Protocol):
    """An environment for the learner; its random state can be saved and restored between episodes."""

    states: int
    actions: int

    def reset(self) -> int:
        """Begin an episode and return its first state."""

    def step(self, action: int) -> Transition:
        """Return next state, reward, and whether the episode terminated."""

    def explore(self) -> int:
        """Return an action drawn from the action space."""

    def random_state(self) -> dict[str, Any]:
        """Return the state of the environment's and the action space's generators."""

    def restore(self, random_state: Mapping[str, Any]) -> None:
        """Restore a state that `random_state` returned."""

    def close(self) -> None:
        """Release the environment."""


class ResolvedId(NamedTuple):
    """The registered environment for a requested id."""

    env_id: str
    family: str  # the id without namespace and version
    note: str = ""


def resolve(env_id: str) -> ResolvedId:
    """Return the registered id for `env_id`; raise LookupError with a message.

    An id without a version means the newest version; so does a version that is older than all registered
    ones, with a note.
    """
    match = _ID.match(env_id)
    if match is None:
        raise LookupError(f"{env_id!r} is not the name of an environment")
    family = match["name"]
    if env_id in gymnasium.registry:
        return ResolvedId(env_id, family)
    candidates = [
        spec.id
        for spec in gymnasium.registry.values()
        if spec.name == family and spec.namespace == match["space"] and spec.version is not None
    ]
    if not candidates:
        raise LookupError(
            f"{env_id!r} is not registered in Gymnasium {gymnasium.__version__}{_toy_text_names()}"
        )
    newest = max(candidates, key=_version)
    if match["version"] is None:
        return ResolvedId(newest, family)
    if int(match["version"]) > min(map(_version, candidates)):
        raise LookupError(
            f"{env_id!r} is not registered in Gymnasium {gymnasium.__version__}; it has {newest}"
        )
    return ResolvedId(
        newest, family, f"{env_id} is no longer in Gymnasium {gymnasium.__version__}; using {newest}"
    )


def check(env_id: str, env_kwargs: Mapping[str, Any]) -> list[ConfigError]:
    """Return the errors of the environment that a config selects, after creating it once."""
    try:
        registered = resolve(env_id).env_id
    except LookupError as error:
        return [ConfigError("env_id", str(error.args[0]))]
    try:
        _make(registered, env_kwargs).close()
    except ImportError as error:
        return [ConfigError("env_id", str(error))]
    except UnsuitableSpace as error:
        return [ConfigError("env_id", str(error))]
    except (LookupError, TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
        return [ConfigError("env_kwargs", f"{type(error).__name__}: {error}")]
    return []


def make(env_id: str, env_kwargs: Mapping[str, Any], seed: int) -> World:
    """Return the world of the registered `env_id`, seeded."""
    env = _make(env_id, env_kwargs)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    inner = env.unwrapped
    is_table = type(inner).__name__ in _TABLE_CLASSES and type(inner).__module__.startswith(
        "gymnasium.envs.toy_text"
    )
    if is_table and not getattr(inner, "fickle_passenger", False):
        return TableWorld(env)
    return GymWorld(env)


class UnsuitableSpace(ValueError):
    """The observations or actions of the environment cannot index a table."""


class GymWorld:
    """A Gymnasium environment with discrete observations and actions."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Use a seeded environment."""
        self._env = env
        self.states = _size(env.observation_space, "observations")
        self.actions = _size(env.action_space, "actions")

    def reset(self) -> int:
        """Begin an episode and return its first state."""
        return int(self._env.reset()[0])

    def step(self, action: int) -> Transition:
        """Return next state, reward, and whether the episode terminated."""
        state, reward, terminated, _, _ = self._env.step(action)
        return int(state), float(reward), bool(terminated)

    def explore(self) -> int:
        """Return an action drawn from the action space."""
        return int(self._env.action_space.sample())

    def random_state(self) -> dict[str, Any]:
        """Return the state of the environment's and the action space's generators."""
        env = self._env
        return {
            "env": _state_of(env.unwrapped.np_random),
            "action_space": _state_of(env.action_space.np_random),
        }

    def restore(self, random_state: Mapping[str, Any]) -> None:
        """Restore a state that `random_state` returned."""
        self._env.unwrapped.np_random.bit_generator.state = dict(random_state["env"])
        self._env.action_space.np_random.bit_generator.state = dict(random_state["action_space"])

    def close(self) -> None:
        """Release the environment."""
        self._env.close()


class TableWorld:
    """A toy-text environment that is played from its own table with its own generator."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Use a seeded environment that is fully described by its `P` and `initial_state_distrib`."""
        self._env = env
        inner: Any = env.unwrapped
        self.states = _size(env.observation_space, "observations")
        self.actions = _size(env.action_space, "actions")
        self._start_sums = _cumulative_sums(inner.initial_state_distrib)
        self._uniforms = Uniforms(inner.np_random)
        self._transitions = [
            [_thresholds_and_outcomes(inner.P[s][a]) for a in range(self.actions)] for s in range(self.states)
        ]
        self.step = self._stepper()

    def _stepper(self) -> Callable[[int], Transition]:
        """Return `step` as a closure, which avoids four attribute lookups for every step."""
        transitions, draw = self._transitions, self._uniforms.draw
        state = 0

        def step(action: int) -> Transition:
            nonlocal state
            thresholds, outcomes = transitions[state][action]
            outcome: Transition = outcomes[bisect_right(thresholds, draw())]
            state = outcome[0]
            return outcome

        def set_state(new_state: int) -> None:
            nonlocal state
            state = new_state

        self._set_state = set_state
        return step

    def reset(self) -> int:
        """Begin an episode and return its first state."""
        index = bisect_right(self._start_sums, self._uniforms.draw())
        state = index if index < len(self._start_sums) else 0
        self._set_state(state)
        return state

    def explore(self) -> int:
        """Return an action drawn from the action space."""
        return int(self._env.action_space.sample())

    def random_state(self) -> dict[str, Any]:
        """Return the state of the environment's and the action space's generators."""
        return {"env": self._uniforms.state(), "action_space": _state_of(self._env.action_space.np_random)}

    def restore(self, random_state: Mapping[str, Any]) -> None:
        """Restore a state that `random_state` returned; `step` is a new function afterwards."""
        self._uniforms.restore(random_state["env"])
        self.step = self._stepper()
        self._env.action_space.np_random.bit_generator.state = dict(random_state["action_space"])

    def close(self) -> None:
        """Release the environment."""
        self._env.close()


def _make(env_id: str, env_kwargs: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Return the Gymnasium environment; raise UnsuitableSpace if its spaces cannot index a table."""
    env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **env_kwargs)
    _size(env.observation_space, "observations")
    _size(env.action_space, "actions")
    return env


def _size(space: Any, noun: str) -> int:
    """Return n of a space Discrete(n) that starts at 0; raise UnsuitableSpace for other spaces."""
    if not isinstance(space, gymnasium.spaces.Discrete) or space.start != 0:
        raise UnsuitableSpace(f"its {noun} are {space}; a table needs Discrete(n) that starts at 0")
    return int(space.n)


def _thresholds_and_outcomes(
    outcomes: list[tuple[float, int, float, bool]],
) -> tuple[list[float], list[Transition]]:
    """Return the thresholds and the outcomes of one (state, action).

    Gymnasium's rule is `argmax(cumsum > u)`; if rounding leaves no entry above u, it takes the first.
    """
    results = [(int(state), float(reward), bool(done)) for _, state, reward, done in outcomes]
    return _cumulative_sums([entry[0] for entry in outcomes]), [*results, results[0]]


def _cumulative_sums(probabilities: Any) -> list[float]:
    return [float(value) for value in np.cumsum(np.asarray(probabilities))]


def _state_of(generator: np.random.Generator) -> dict[str, Any]:
    return dict(generator.bit_generator.state)


def _version(env_id: str) -> int:
    return int(env_id.rpartition("-v")[2])


def _toy_text_names() -> str:
    """Return the end of an error message: the registered toy-text environments."""
    tables = sorted(spec.id for spec in gymnasium.registry.values() if "toy_text" in str(spec.entry_point))
    return f"; its toy-text environments are {', '.join(tables)}" if tables else ""
