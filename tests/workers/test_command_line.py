"""`python -m mosaic_tabular`, started by hand and by mosaicd: flags, exit codes, files, lines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mosaic_worker import WorkerAnalyticsManifest

from tests.workers.process import DEADLINE_S, Worker, environment, run_to_end

SHORT: dict[str, Any] = {"env_id": "FrozenLake", "episodes": 20}


def call(directory: Path, *flags: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run the worker to its end; any exit code is accepted."""
    return subprocess.run(
        [sys.executable, "-m", "mosaic_tabular", *flags],
        cwd=directory, env=environment(**extra), timeout=DEADLINE_S,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_run_prints_all_lifecycle_lines(tmp_path: Path) -> None:
    """A run prints run_started with totals and config, its episodes, checkpoint_saved, run_completed."""
    worker = run_to_end(tmp_path, {**SHORT, "run_id": "r", "total_timesteps": 10**6, "worker_id": "w"})
    started = worker.lines[0]["payload"]
    assert (started["total_episodes"], started["total_steps"], started["start_episode"]) == (20, 10**6, 0)
    assert started["config"]["learning_rate"] == 0.1
    assert worker.events() == ["run_started", "checkpoint_saved", "run_completed"]
    assert [episode["episode_index"] for episode in worker.episodes()] == list(range(20))
    last = worker.episodes()[-1]
    assert (last["worker_id"], last["metrics"].keys()) == ("w", {"mean_return_100", "epsilon"})
    assert last["global_step"] == sum(episode["steps"] for episode in worker.episodes())
    assert json.loads(last["metadata_json"]).keys() >= {"epsilon", "mean_return_100"}
    assert worker.last()["episodes"] == 20


def test_mosaicd_variables_have_precedence(tmp_path: Path) -> None:
    """Ids and directories in mosaicd's variables have precedence, and no file is written elsewhere."""
    files = tmp_path / "files"
    work = tmp_path / "work"
    worker = run_to_end(
        work, {**SHORT, "run_id": "mine", "checkpoint_every_episodes": 5}, "--run-dir", "no",
        MOSAIC_RUN_ID="01J", MOSAIC_RUN_DIR=str(files), MOSAIC_CHECKPOINT_DIR=str(files / "saved"),
        WORKER_ID="w9",
    )  # fmt: skip
    assert {line["run_id"] for line in worker.lines} == {"01J"}
    assert {episode["worker_id"] for episode in worker.episodes()} == {"w9"}
    manifest = WorkerAnalyticsManifest.load(files / "analytics.json")
    assert (manifest.run_id, manifest.worker_type) == ("01J", "tabular")
    assert manifest.artifacts["checkpoints"]["directory"] == "saved"
    assert manifest.artifacts["checkpoints"]["files"] == sorted(
        path.name for path in (files / "saved").iterdir()
    )
    assert [path.name for path in work.iterdir()] == ["config.json"]


def test_step_telemetry_prints_every_step(tmp_path: Path) -> None:
    """step_telemetry prints a line for every step, in order, with the total number of steps."""
    worker = run_to_end(tmp_path, {**SHORT, "episodes": 3, "step_telemetry": True})
    steps = [line for line in worker.lines if line.get("type") == "step"]
    assert [step["global_step"] for step in steps] == list(range(1, len(steps) + 1))
    assert [step["step_index"] for step in steps if step["episode_index"] == 1] == list(
        range(worker.episodes()[1]["steps"])
    )
    assert steps[-1]["terminated"] or steps[-1]["truncated"]


def test_episode_telemetry_prints_every_nth_episode(tmp_path: Path) -> None:
    """episode_telemetry n prints every n-th episode and the last; 0 prints none."""
    worker = run_to_end(tmp_path / "some", {**SHORT, "episode_telemetry": 8})
    assert [episode["episode_index"] for episode in worker.episodes()] == [7, 15, 19]
    assert not run_to_end(tmp_path / "none", {**SHORT, "episode_telemetry": 0}).episodes()


def test_total_timesteps_ends_the_run_exactly(tmp_path: Path) -> None:
    """total_timesteps ends the run at exactly that step, and the last episode is truncated."""
    worker = run_to_end(tmp_path, {"env_id": "Taxi", "total_timesteps": 1050})
    assert worker.last()["global_step"] == 1050
    assert worker.episodes()[-1]["truncated"]
    assert worker.lines[0]["payload"]["total_episodes"] is None


def test_dry_run_checks_and_writes_nothing(tmp_path: Path) -> None:
    """--dry-run checks and exits 0 without telemetry or files; --emit-summary prints the settings."""
    (tmp_path / "config.json").write_text(json.dumps(SHORT))
    done = call(tmp_path, "--config", "config.json", "--dry-run", "--emit-summary")
    assert done.returncode == 0
    summary = json.loads(done.stdout)["summary"]
    assert (summary["dry_run"], summary["episodes"], summary["gamma"]) == (True, 20, 0.99)
    assert summary["env_id"].startswith("FrozenLake-v")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_invalid_config_exits_2_with_all_errors(tmp_path: Path) -> None:
    """All errors of a config are on stderr and in run_failed; no file is written, and the exit code is 2."""
    config = {"run_id": "r", "episodes": -1, "gama": 1, "env_id": "Taksi-v3"}
    with Worker(tmp_path, config) as worker:
        assert worker.finish() == 2
    assert worker.events() == ["run_failed"]
    assert [error["path"] for error in worker.last()["errors"]] == ["episodes", "gama", "env_id"]
    for line in ("episodes: -1 is less than 1", "gama: unknown key", "env_id: 'Taksi-v3' is not registered"):
        assert line in worker.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    done = call(tmp_path, "--config", "config.json", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("flags", [["--config", "absent.json"], ["--config", "."]])
def test_unreadable_config_exits_2_with_run_failed(flags: list[str], tmp_path: Path) -> None:
    """A config that cannot be read gives one sentence, a run_failed line and exit code 2."""
    done = call(tmp_path, *flags)
    assert done.returncode == 2
    assert json.loads(done.stdout)["event"] == "run_failed"
    assert done.stderr.count("\n") == 1


def test_flags_of_older_configs_are_accepted(tmp_path: Path) -> None:
    """--grpc is ignored; --worker-id and --run-id are used; the summary is the last line."""
    config = {"metadata": {"worker": {"config": SHORT}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ("--grpc", "--grpc-target", "x:1", "--worker-id", "w1", "--run-id", "r1", "--emit-summary")
    done = call(tmp_path, "--config", "config.json", *flags)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, lines[0]["run_id"], lines[1]["worker_id"]) == (0, "r1", "w1")
    assert lines[-1]["summary"]["episodes"] == 20


def test_import_loads_no_heavy_module() -> None:
    """Importing the package, as discovery does, loads neither numpy nor Gymnasium."""
    code = "import sys, mosaic_tabular as worker; worker.get_worker_metadata(); worker.get_config_schema()\n"
    code += "sys.exit('numpy' in sys.modules or 'gymnasium' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), timeout=DEADLINE_S, check=True)


def test_printed_lines_are_written_at_once() -> None:
    """In a WorkerRun, standard output is line buffered: a killed worker loses no printed line."""
    code = (
        "import os; from mosaic_worker import WorkerRun; run = WorkerRun().__enter__(); print('kept'); "
        "os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout == b"kept\n"
