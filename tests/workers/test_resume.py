"""Checkpoints of the tabular worker: an interrupted run ends exactly as an uninterrupted one."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from mosaic_worker import CheckpointStore

from tests.workers.process import Worker, run_to_end

CONFIG: dict[str, Any] = {
    "run_id": "r", "env_id": "FrozenLake", "episodes": 400, "seed": 2, "checkpoint_every_episodes": 50,
    "heartbeat_interval_s": 3600,
}  # fmt: skip


@pytest.mark.parametrize("algo", ["q_learning", "sarsa"])
def test_stopped_run_resumes_exactly(algo: str, tmp_path: Path) -> None:
    """A run that SIGTERM stopped and that is started again has the same episodes and the same table."""
    config = {**CONFIG, "algo": algo}
    complete = run_to_end(tmp_path / "complete", config)
    with Worker(tmp_path / "parts", {**config, "episode_delay_s": 0.02}) as first:
        first.wait_for_episode(55)
        first.process.send_signal(signal.SIGTERM)
        assert first.finish() == 0, first.tail()
    assert first.events()[-2:] == ["checkpoint_saved", "run_cancelled"]
    assert first.last()["reason"] == "SIGTERM"
    second = run_to_end(tmp_path / "parts", config)
    assert second.events()[:2] == ["run_started", "checkpoint_loaded"]
    assert second.lines[0]["payload"]["start_episode"] == len(first.episodes())
    assert first.episodes() + second.episodes() == complete.episodes()
    assert second.last()["q_sha256"] == complete.last()["q_sha256"]


def test_killed_run_resumes_from_its_newest_complete_checkpoint(tmp_path: Path) -> None:
    """After kill -9 during checkpoints the newest complete one is loaded, and the end is the same."""
    config = {**CONFIG, "checkpoint_every_episodes": 1}
    complete = run_to_end(tmp_path / "complete", CONFIG)
    parts = tmp_path / "parts"
    for episode in (20, 60, 90):
        with Worker(parts, {**config, "episode_delay_s": 0.01}) as worker:
            worker.wait_for_episode(episode)
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()
    checkpoint, _ = CheckpointStore(parts / "runs" / "r" / "checkpoints").latest_verified()
    assert checkpoint is not None
    last = run_to_end(parts, config)
    assert last.lines[0]["payload"]["start_episode"] > 20
    assert last.last()["q_sha256"] == complete.last()["q_sha256"]


def test_damaged_checkpoint_is_reported_and_skipped(tmp_path: Path) -> None:
    """A damaged newest checkpoint is reported and skipped; the run resumes from the one before."""
    complete = run_to_end(tmp_path / "complete", {**CONFIG, "epsilon_decay_episodes": 300})
    config = {**CONFIG, "episodes": 180, "epsilon_decay_episodes": 300}
    run_to_end(tmp_path / "parts", config)
    directory = tmp_path / "parts" / "runs" / "r" / "checkpoints"
    newest = max(directory.iterdir())
    (newest / "q_table.npy").write_bytes((newest / "q_table.npy").read_bytes()[:-8])
    second = run_to_end(tmp_path / "parts", {**config, "episodes": 400})
    (error,) = [line for line in second.lines if line.get("type") == "error"]
    assert "q_table.npy" in error["message"]
    assert error["path"].endswith(newest.name)
    assert second.lines[0]["payload"]["start_episode"] == 150
    assert second.last()["q_sha256"] == complete.last()["q_sha256"]


def test_resume_accepts_a_checkpoint_a_directory_or_none(tmp_path: Path) -> None:
    """`resume` accepts a checkpoint, a directory or "none"; a checkpoint of another environment fails."""
    run_to_end(tmp_path, {**CONFIG, "episodes": 120})
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "runs" / "r" / "checkpoints", moved)
    for path in (moved, max(moved.iterdir())):
        config = {**CONFIG, "run_id": path.name, "resume": str(path), "episodes": 121}
        assert run_to_end(tmp_path, config).lines[0]["payload"]["start_episode"] == 120
    fresh = run_to_end(tmp_path, {**CONFIG, "run_id": moved.name, "resume": "none", "episodes": 5})
    assert fresh.lines[0]["payload"]["start_episode"] == 0
    other = {**CONFIG, "run_id": "x", "env_id": "Taxi", "resume": str(moved)}
    with Worker(tmp_path, other) as worker:
        assert worker.finish() == 2
    assert "is a checkpoint of FrozenLake" in worker.last()["errors"][0]["message"]
    with Worker(tmp_path, {**other, "resume": str(tmp_path / "nowhere")}) as worker:
        assert worker.finish() == 1
    assert worker.last()["error_type"] == "CheckpointInvalid"


def test_run_continues_if_no_checkpoint_can_be_written(tmp_path: Path) -> None:
    """If no checkpoint can be written, the run prints an error line and continues to its end."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a directory should be")
    worker = run_to_end(tmp_path, CONFIG, MOSAIC_CHECKPOINT_DIR=str(blocked / "checkpoints"))
    assert worker.events()[-1] == "run_completed"
    assert worker.last()["checkpoint"] is None
    assert any(
        "could not be written" in line["message"] for line in worker.lines if line.get("type") == "error"
    )
