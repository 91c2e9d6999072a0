"""One episode of Q-learning or SARSA on a table, and the epsilon schedule.

`q` is a list of rows of floats, one row per state: for single numbers, plain lists are several times as fast
as arrays.  Ties are broken at random.  A truncated episode bootstraps from its last state, a terminated one
does not.  Random numbers are drawn in a fixed order, so the same seed gives the same episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mosaic_tabular.worlds import World

Table = list[list[float]]
Draw = Callable[[], float]
OnStep = Callable[[int, int, int, float, bool], None]


class Settings(NamedTuple):
    """The learning settings of an episode."""

    learning_rate: float
    gamma: float
    epsilon: float
    limit: int  # steps


class Played(NamedTuple):
    """The result of an episode."""

    total_reward: float
    steps: int
    is_terminated: bool


def epsilon_at(episode: int, start: float, end: float, decay_episodes: int) -> float:
    """Return the share of random actions in `episode` (from 0): linear from `start` to `end`."""
    if episode >= decay_episodes:
        return end
    return start + (end - start) * (episode / decay_episodes)


def q_learning_episode(
    world: World, q: Table, draw: Draw, settings: Settings, on_step: OnStep | None
) -> Played:
    """Play one episode, learning off-policy; `on_step(index, state, action, reward, terminated)`."""
    rate, gamma, epsilon, limit = settings
    step, explore = world.step, world.explore
    total, count, done = 0.0, 0, False
    state = world.reset()
    while count < limit and not done:
        row = q[state]
        if epsilon and draw() < epsilon:
            action = explore()
        else:
            best = max(row)
            action = row.index(best) if row.count(best) == 1 else _break_tie(row, best, draw)
        next_state, reward, done = step(action)
        target = reward if done else reward + gamma * max(q[next_state])
        row[action] += rate * (target - row[action])
        total += reward
        if on_step is not None:
            on_step(count, state, action, reward, done)
        count += 1
        state = next_state
    return Played(total, count, done)


def sarsa_episode(world: World, q: Table, draw: Draw, settings: Settings, on_step: OnStep | None) -> Played:
    """Play one episode, learning on-policy; `on_step` as in `q_learning_episode`."""
    rate, gamma, epsilon, limit = settings
    step, explore = world.step, world.explore

    def choose(row: list[float]) -> int:
        if epsilon and draw() < epsilon:
            return explore()
        best = max(row)
        return row.index(best) if row.count(best) == 1 else _break_tie(row, best, draw)

    total, count, done = 0.0, 0, False
    state = world.reset()
    action = choose(q[state])
    while count < limit and not done:
        row = q[state]
        next_state, reward, done = step(action)
        next_action = choose(q[next_state])
        target = reward if done else reward + gamma * q[next_state][next_action]
        row[action] += rate * (target - row[action])
        total += reward
        if on_step is not None:
            on_step(count, state, action, reward, done)
        count += 1
        state, action = next_state, next_action
    return Played(total, count, done)


EPISODES = {"q_learning": q_learning_episode, "sarsa": sarsa_episode}


def _break_tie(row: list[float], best: float, draw: Draw) -> int:
    """Return a random action among those with the value `best`."""
    ties = [index for index, value in enumerate(row) if value == best]
    return ties[int(draw() * len(ties))]
