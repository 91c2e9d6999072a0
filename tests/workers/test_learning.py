"""The tabular worker learns with its defaults, repeatably from a seed, with Gymnasium's dynamics."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from mosaic_tabular import worlds
from mosaic_tabular.learning import epsilon_at
from mosaic_tabular.uniforms import BLOCK, Uniforms

from tests.workers.process import run_to_end


@pytest.mark.parametrize(
    ("config", "final_min", "early_max"),
    [
        ({"env_id": "Taxi"}, 6.0, -100.0),
        ({"env_id": "Taxi", "algo": "sarsa"}, 4.0, -100.0),
        ({"env_id": "FrozenLake-v1"}, 0.6, 0.5),
        ({"env_id": "FrozenLake", "algo": "sarsa"}, 0.6, 0.5),
        ({"env_id": "CliffWalking"}, -20.0, -50.0),
        ({"env_id": "CliffWalking", "algo": "sarsa"}, -30.0, -50.0),
    ],
    ids=str,
)
def test_default_settings_learn(
    config: dict[str, Any], final_min: float, early_max: float, tmp_path: Path
) -> None:
    """With default settings the mean of 100 returns begins low and ends high."""
    worker = run_to_end(tmp_path, {**config, "seed": 5})
    means = [episode["metrics"]["mean_return_100"] for episode in worker.episodes()]
    assert means[9] < early_max
    assert means[-1] > final_min
    assert worker.last()["mean_return_100"] == means[-1]
    assert len(means) == worker.lines[0]["payload"]["total_episodes"]


def test_one_seed_gives_identical_runs(tmp_path: Path) -> None:
    """One seed gives identical episodes and tables; a null seed is drawn and reported."""
    config = {"run_id": "r", "env_id": "Taxi", "episodes": 60, "seed": 3}
    first, again = (run_to_end(tmp_path / name, config) for name in ("a", "b"))
    assert first.episodes() == again.episodes()
    assert first.last()["q_sha256"] == again.last()["q_sha256"]
    drawn = run_to_end(tmp_path / "c", {**config, "seed": None})
    seed = drawn.lines[0]["payload"]["seed"]
    repeated = run_to_end(tmp_path / "d", {**config, "seed": seed})
    assert drawn.episodes() == repeated.episodes()
    assert drawn.last()["q_sha256"] != first.last()["q_sha256"]


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("Taxi", {}),
        ("Taxi", {"is_rainy": True}),
        ("FrozenLake", {}),
        ("FrozenLake", {"map_name": "8x8", "is_slippery": False}),
        ("CliffWalking", {}),
        ("CliffWalkingSlippery", {}),
    ],
    ids=str,
)
def test_table_world_equals_gymnasium(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """Trajectories of the table equal those of Gymnasium's `step`, also after a saved random state."""
    resolved = worlds.resolve(env_id).env_id
    fast = worlds.make(resolved, env_kwargs, 11)
    slow = gymnasium.make(resolved, max_episode_steps=-1, **env_kwargs)
    slow.reset(seed=11)
    assert type(fast) is worlds.TableWorld
    moves = np.random.default_rng(0)
    for episode in range(60):
        assert fast.reset() == slow.reset()[0]
        for _ in range(100):
            action = int(moves.integers(fast.actions))
            state, reward, terminated, _, _ = slow.step(action)
            assert fast.step(action) == (state, reward, terminated)
            if terminated:
                break
        saved = fast.random_state()
        assert saved["env"] == slow.unwrapped.np_random.bit_generator.state
        if episode % 20 == 10:
            fast = worlds.make(resolved, env_kwargs, 0)
            fast.restore(saved)


def test_environment_without_a_complete_table_uses_step(tmp_path: Path) -> None:
    """An environment with an incomplete table is played through `step` and resumes exactly."""
    world = worlds.make(worlds.resolve("Taxi").env_id, {"fickle_passenger": True}, 1)
    assert type(world) is worlds.GymWorld
    config = {
        "run_id": "r",
        "env_id": "Taxi",
        "env_kwargs": {"fickle_passenger": True},
        "epsilon_decay_episodes": 40,
    }
    whole = run_to_end(tmp_path / "whole", {**config, "episodes": 60})
    run_to_end(tmp_path / "parts", {**config, "episodes": 25})
    parts = run_to_end(tmp_path / "parts", {**config, "episodes": 60})
    assert parts.last()["q_sha256"] == whole.last()["q_sha256"]


def test_random_numbers_do_not_depend_on_blocks() -> None:
    """Numbers drawn in blocks equal numbers drawn one by one, and the random state is the same."""
    plain, blocks = np.random.default_rng(4), Uniforms(np.random.default_rng(4))
    for count in (0, 1, BLOCK - 1, 1, BLOCK, 5):
        assert [blocks.draw() for _ in range(count)] == [plain.random() for _ in range(count)]
        assert blocks.state() == plain.bit_generator.state
    other = Uniforms(np.random.default_rng(9))
    other.restore(blocks.state())
    assert [other.draw() for _ in range(BLOCK + 3)] == [plain.random() for _ in range(BLOCK + 3)]


def test_epsilon_falls_linearly() -> None:
    """Epsilon falls linearly from start to end over the given episodes and stays there."""
    assert [epsilon_at(episode, 1.0, 0.0, 4) for episode in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert epsilon_at(0, 1.0, 0.2, 0) == 0.2


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [
        ("Taxi-v99", "it has Taxi-v"),
        ("Taksi", "toy-text environments are"),
        ("CartPole-v1", "a table needs Discrete"),
    ],
)
def test_unsuitable_environment_is_refused_with_a_hint(env_id: str, sentence: str) -> None:
    """An unknown environment, or one without discrete spaces, is refused with a hint."""
    (error,) = worlds.check(env_id, {})
    assert error.path == "env_id"
    assert sentence in error.message


def test_wrong_environment_argument_is_an_error_of_env_kwargs() -> None:
    """A wrong argument of the environment is reported as an error of env_kwargs."""
    for env_kwargs in ({"is_slipery": True}, {"map_name": "3x3"}):
        (error,) = worlds.check("FrozenLake", env_kwargs)
        assert error.path == "env_kwargs"


def test_removed_environment_version_means_the_newest() -> None:
    """An id without version, or with a removed version, means the newest; a removed version gives a note."""
    newest = worlds.resolve("Taxi")
    assert newest.note == ""
    assert worlds.resolve(newest.env_id) == newest
    assert worlds.resolve("Taxi-v0").env_id == newest.env_id
    assert "Taxi-v0 is no longer in Gymnasium" in worlds.resolve("Taxi-v0").note
