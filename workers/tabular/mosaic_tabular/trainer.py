"""The training loop: episodes, telemetry, checkpoints and orders.

Orders (pause, checkpoint, stop) are carried out between episodes, where a checkpoint is exact.  When an order
arrives, the current episode is finished without delays, which takes milliseconds.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from mosaic_worker import (
    Checkpoint,
    CheckpointInvalid,
    CheckpointStore,
    ConfigError,
    InvalidWorkerConfig,
    Skipped,
    WorkerAnalyticsManifest,
    WorkerRun,
    verify,
)

from mosaic_tabular import __version__, worlds
from mosaic_tabular.config import TabularConfig, with_presets
from mosaic_tabular.learning import EPISODES, Played, Settings, epsilon_at
from mosaic_tabular.snapshot import Snapshot, load
from mosaic_tabular.uniforms import Uniforms

WINDOW = 100


class TabularRuntime:
    """One training run; `run()` ends by reporting `run_completed` or `run_cancelled`."""

    def __init__(self, config: TabularConfig, run: WorkerRun) -> None:
        """Create the environment and load the checkpoint that `config.resume` selects."""
        self._resolved = worlds.resolve(config.env_id)
        self.config = with_presets(config, self._resolved.family)
        self._run = run
        self._episodes = 0
        self._steps = 0
        self._returns: deque[float] = deque(maxlen=WINDOW)
        self._best_mean: float | None = None
        self._saved: Checkpoint | None = None
        checkpoint, self._skipped = self._find_checkpoint()
        found = None if checkpoint is None else load(checkpoint)
        self.seed = _seed(self.config, found[0] if found else None)
        self._world = worlds.make(self._resolved.env_id, self.config.env_kwargs, self.seed)
        self._uniforms = Uniforms(np.random.default_rng([self.seed, 1]))
        self._q = [[0.0] * self._world.actions for _ in range(self._world.states)]
        if found is not None and checkpoint is not None:
            self._restore(*found, checkpoint)
        self._start_steps, self._start_episodes = self._steps, self._episodes
        self._began_mono = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Train to the end or to a stop, and return the summary."""
        self._report_start()
        self._run.heartbeat.describe = self._position
        self._began_mono = time.monotonic()
        while not self._is_done():
            if self._run.control.checkpoint_point(self._save, self._position):
                return self._end("cancelled")
            self._play_episode()
            self._run.heartbeat.mark()
            every = self.config.checkpoint_every_episodes
            if every and self._episodes % every == 0 and not self._is_done():
                self._save()
        return self._end("completed")

    def _is_done(self) -> bool:
        episodes, steps = self.config.episodes, self.config.total_timesteps
        return (episodes is not None and self._episodes >= episodes) or (
            steps is not None and self._steps >= steps
        )

    def _play_episode(self) -> None:
        """Play one episode, count it and report it."""
        config, index = self.config, self._episodes
        start, end = _filled_in(config.epsilon_start, config.epsilon_end)
        epsilon = epsilon_at(index, start, end, config.epsilon_decay_episodes or 0)
        rate, gamma = _filled_in(config.learning_rate, config.gamma)
        limit = config.max_episode_steps or 1
        if config.total_timesteps is not None:
            limit = min(limit, config.total_timesteps - self._steps)
        is_watched = config.step_telemetry or config.step_delay_s > 0
        played = EPISODES[config.algo](
            self._world,
            self._q,
            self._uniforms.draw,
            Settings(rate, gamma, epsilon, limit),
            self._on_step(index, limit) if is_watched else None,
        )
        self._episodes += 1
        self._steps += played.steps
        self._returns.append(played.total_reward)
        mean = sum(self._returns) / len(self._returns)
        if len(self._returns) == WINDOW and (self._best_mean is None or mean > self._best_mean):
            self._best_mean = mean
        if config.episode_telemetry and (self._episodes % config.episode_telemetry == 0 or self._is_done()):
            self._report_episode(index, played, epsilon, mean)
        if config.episode_delay_s > 0:
            self._run.control.sleep(config.episode_delay_s)

    def _on_step(self, episode: int, limit: int) -> Any:
        """Return the function that reports a step and then pauses for a watching user."""
        config, before = self.config, self._steps
        control, emitter, heartbeat = self._run.control, self._run.emitter, self._run.heartbeat
        has_orders = False

        def on_step(index: int, state: int, action: int, reward: float, is_terminated: bool) -> None:
            nonlocal has_orders
            heartbeat.mark()
            if config.step_telemetry:
                emitter.step(
                    episode_index=episode,
                    step_index=index,
                    action=action,
                    observation=state,
                    reward=reward,
                    terminated=is_terminated,
                    truncated=not is_terminated and index + 1 >= limit,
                    policy_label=config.algo,
                    backend="mosaic_tabular",
                    global_step=before + index + 1,
                )
            if config.step_delay_s > 0 and not has_orders:
                has_orders = control.sleep(config.step_delay_s)

        return on_step

    def _report_episode(self, index: int, played: Played, epsilon: float, mean: float) -> None:
        """Write the telemetry line of an episode."""
        metrics = {"mean_return_100": mean, "epsilon": epsilon}
        self._run.emitter.episode(
            episode_index=index,
            total_reward=played.total_reward,
            steps=played.steps,
            terminated=played.is_terminated,
            truncated=not played.is_terminated,
            metadata={**metrics, "global_step": self._steps, "algo": self.config.algo},
            global_step=self._steps,
            metrics=metrics,
        )

    def _report_start(self) -> None:
        """Report `run_started`, warnings, and the checkpoint that was loaded."""
        config, emitter = self.config, self._run.emitter
        emitter.run_started(
            {
                "worker_type": "tabular",
                "worker_version": __version__,
                "env_id": self._resolved.env_id,
                "env_id_requested": config.env_id,
                "algo": config.algo,
                "seed": self.seed,
                "total_episodes": config.episodes,
                "total_steps": config.total_timesteps,
                "start_episode": self._episodes,
                "global_step": self._steps,
                "gymnasium": gymnasium.__version__,
                "config": {**config.to_dict(), "seed": self.seed},
            }
        )
        if self._resolved.note:
            emitter.error(self._resolved.note, severity="warning")
        for skipped in self._skipped:
            message = f"a checkpoint was skipped: {skipped.reason}"
            emitter.error(message, severity="warning", path=str(skipped.path))
        if self._saved is not None:
            emitter.checkpoint_loaded({**self._saved.payload(), "episodes": self._episodes})

    def _position(self) -> dict[str, Any]:
        """Return the progress of the run; the heartbeat thread also calls this."""
        elapsed_s = time.monotonic() - self._began_mono
        return {
            "episodes": self._episodes,
            "global_step": self._steps,
            "mean_return_100": self._mean_return(),
            "steps_per_s": round((self._steps - self._start_steps) / elapsed_s, 1) if elapsed_s > 0 else None,
        }

    def _mean_return(self) -> float | None:
        returns = list(self._returns)
        return sum(returns) / len(returns) if returns else None

    def _save(self) -> Checkpoint | None:
        """Write a checkpoint and report it; an OSError is reported and does not end the run."""
        if not self._is_saved():
            try:
                self._saved = self._write_checkpoint()
            except OSError as error:
                self._run.emitter.error(f"the checkpoint could not be written: {error}", severity="error")
                return None
        if self._saved is not None:
            self._run.emitter.checkpoint_saved({**self._saved.payload(), "episodes": self._episodes})
        return self._saved

    def _is_saved(self) -> bool:
        """Return whether the newest checkpoint of this run (not of its origin) has the current state."""
        saved, own = self._saved, self._run.checkpoints.directory
        return (
            saved is not None
            and saved.step == self._steps
            and saved.path.parent == own
            and saved.path.exists()
        )

    def _write_checkpoint(self) -> Checkpoint:
        files = self._snapshot().files(self._q)
        return self._run.checkpoints.save(self._steps, files, {"episodes": self._episodes})

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            env_id=self._resolved.env_id,
            env_kwargs=self.config.env_kwargs,
            seed=self.seed,
            episodes=self._episodes,
            steps=self._steps,
            recent_returns=list(self._returns),
            best_mean_return=self._best_mean,
            random_state={"agent": self._uniforms.state(), **self._world.random_state()},
        )

    def _find_checkpoint(self) -> tuple[Checkpoint | None, list[Skipped]]:
        """Return the checkpoint that `config.resume` selects, and the newer ones that were skipped."""
        if self.config.resume == "none":
            return None, []
        if self.config.resume == "auto":
            return self._run.checkpoints.latest_verified()
        path = Path(self.config.resume)
        if (path / "manifest.json").exists():
            return verify(path), []
        found, skipped = CheckpointStore(path).latest_verified()
        if found is None:
            reasons = "; ".join(f"{entry.path.name}: {entry.reason}" for entry in skipped)
            raise CheckpointInvalid(
                f"resume: no complete checkpoint in {path}" + (f" ({reasons})" if reasons else "")
            )
        return found, skipped

    def _restore(self, snapshot: Snapshot, table: list[list[float]], checkpoint: Checkpoint) -> None:
        """Continue from a snapshot; raise InvalidWorkerConfig if it belongs to another environment."""
        wanted = (self._resolved.env_id, self.config.env_kwargs)
        if (snapshot.env_id, snapshot.env_kwargs) != wanted or len(table) != self._world.states:
            found_env = f"{snapshot.env_id} {snapshot.env_kwargs or ''}".strip()
            raise InvalidWorkerConfig(
                [ConfigError("resume", f"{checkpoint.path} is a checkpoint of {found_env}")]
            )
        self._q = table
        self._episodes, self._steps = snapshot.episodes, snapshot.steps
        self._returns.extend(snapshot.recent_returns)
        self._best_mean = snapshot.best_mean_return
        self._uniforms.restore(snapshot.random_state["agent"])
        self._world.restore(snapshot.random_state)
        self._saved = checkpoint

    def _end(self, status: str) -> dict[str, Any]:
        """Save a checkpoint and the manifest, report the end and return the summary."""
        elapsed_s = time.monotonic() - self._began_mono
        checkpoint = self._save()
        self._write_analytics(status)
        steps = self._steps - self._start_steps
        summary = {
            "status": status,
            "episodes": self._episodes,
            "global_step": self._steps,
            "mean_return_100": self._mean_return(),
            "best_mean_return_100": self._best_mean,
            "last_return": self._returns[-1] if self._returns else None,
            "elapsed_s": round(elapsed_s, 3),
            "steps_per_s": round(steps / elapsed_s, 1) if elapsed_s > 0 and steps else None,
            "q_sha256": hashlib.sha256(np.asarray(self._q, dtype=np.float64).tobytes()).hexdigest(),
            "checkpoint": str(checkpoint.path) if checkpoint is not None else None,
        }
        self._world.close()
        if status == "completed":
            self._run.completed(summary)
        else:
            self._run.cancelled(summary)
        return summary

    def _write_analytics(self, status: str) -> None:
        run_dir, store = self._run.run_dir, self._run.checkpoints
        directory = store.directory
        relative = directory.relative_to(run_dir) if directory.is_relative_to(run_dir) else directory
        files = sorted(path.name for path in directory.glob("checkpoint-*")) if directory.is_dir() else []
        manifest = WorkerAnalyticsManifest(
            run_id=self._run.run_id,
            worker_type="tabular",
            artifacts={
                "checkpoints": {"directory": str(relative), "format": "mosaic_worker/1", "files": files}
            },
            metadata={
                "status": status,
                "env_id": self._resolved.env_id,
                "algo": self.config.algo,
                "seed": self.seed,
                "episodes": self._episodes,
                "global_step": self._steps,
                "mean_return_100": self._mean_return(),
            },
        )
        try:
            manifest.save(run_dir)
        except OSError as error:
            self._run.emitter.error(f"analytics.json could not be written: {error}", severity="error")


def _seed(config: TabularConfig, snapshot: Snapshot | None) -> int:
    if config.seed is not None:
        return config.seed
    return snapshot.seed if snapshot is not None else secrets.randbits(31)


def _filled_in(*values: float | None) -> tuple[float, ...]:
    """Return the settings without None: `with_presets` has filled them in."""
    return tuple(0.0 if value is None else value for value in values)
