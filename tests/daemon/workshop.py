"""A harness with two MOSAIC workers: `trainer` (tabular), and `idler`, which misbehaves as its config says.

Discovery calls interpreters, not search paths. So the workshop makes an interpreter: a script that sets the
path and becomes Python.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.places import ROOT

_ENTRY_POINTS = """[mosaic.workers]
trainer = mosaic_tabular:get_worker_metadata
idler = idler:get_worker_metadata
"""

#: Sends heartbeats, steps, hangs, saves and exits as its config says.
_IDLER = '''
import json, os, sys, time
from types import SimpleNamespace
from mosaic_worker import WorkerCLI, WorkerEnvironment, WorkerRun

WORKER_MODULE = "idler"


def get_worker_metadata():
    return SimpleNamespace(name="idler", version="1"), SimpleNamespace(
        worker_type="idler", supports_checkpointing=True, supports_pause_resume=True
    )


def hang(config):
    """Hang. The stacks of the stuck worker must name this function, so it calls no Python function."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not os.access(config.get("hang_until", "/nowhere"), os.F_OK):
        time.sleep(0.02)


def main():
    args = WorkerCLI.create_base_parser("idler", "Idles.").parse_args()
    config = WorkerCLI.load_config(args, WorkerEnvironment.from_environ())
    time.sleep(config.get("start_delay_s", 0))
    while not os.path.exists(config.get("begin_at", "/")):
        time.sleep(0.01)
    with WorkerRun(heartbeat_interval_s=config.get("beat_s", 0.05)) as run:
        checkpoint, skipped = run.checkpoints.latest_verified()
        first = checkpoint.step if checkpoint else 0
        run.emitter.run_started({})
        if checkpoint:
            run.emitter.checkpoint_loaded(checkpoint.payload())
        for step in range(first + 1, first + 1 + config.get("steps", 0)):
            run.emitter.event("progress", {"global_step": step})
            time.sleep(config.get("step_s", 0))
            if run.control.stop_requested:
                run.cancelled()
                return run.stop_exit_code
            if step in config.get("save_at", []):
                saved = run.checkpoints.save(step, {"state": b"x" * 100})
                run.emitter.checkpoint_saved(saved.payload())
                if step == config.get("damage_at"):
                    (saved.path / "state").write_bytes(b"damaged")
            if step == config.get("die_at"):
                os._exit(3)
        while config.get("wait") and not run.control.stop_requested:
            time.sleep(0.01)
        if config.get("wait"):
            run.cancelled()
            return run.stop_exit_code
        if config.get("mute"):
            run.heartbeat.close()
        if config.get("hang"):
            hang(config)
        if "exit" in config:
            os._exit(config["exit"])
        run.completed()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
'''


def workshop(build: Build, **settings: dict[str, Any]) -> DaemonHarness:
    """Start a daemon whose settings name the workers `trainer` (tabular) and `idler`."""
    harness = build(start=False)
    site = harness.home / "site"
    info = site / "workshop-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: workshop\nVersion: 1\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    (site / "idler.py").write_text(_IDLER)
    path = os.pathsep.join(map(str, (site, ROOT / "workers/sdk", ROOT / "workers/tabular")))
    python = harness.home / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path}\nexport PYTHONPATH\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    workers = {f"workers.{kind}": {"python": str(python)} for kind in ("trainer", "idler")}
    harness.configure({**settings, **workers})
    harness.start()
    return harness


def config_of(kind: str, **config: Any) -> dict[str, Any]:
    """Return the TrainRunConfig of a worker of the workshop."""
    return {
        "run_name": kind, "entry_point": "python", "arguments": [], "environment": {}, "artifacts": {},
        "resources": {"cpus": 1, "memory_mb": 512, "gpus": {"requested": 0}},
        "metadata": {"worker": {"kind": kind, "config": config}},
    }  # fmt: skip


def idle(harness: DaemonHarness, params: dict[str, Any] | None = None, **config: Any) -> str:
    """Submit an idler; `params` are the parameters of run.submit, `config` is the worker's config."""
    run = harness.submit_config(config_of("idler", **config), **{"dedup": "new", **(params or {})})
    return str(run["run_id"])


def train(harness: DaemonHarness, params: dict[str, Any] | None = None, **config: Any) -> str:
    """Submit a tabular worker with a small environment."""
    worker_config = {"env_id": "FrozenLake", "seed": 3, "heartbeat_interval_s": 0.1, **config}
    run = harness.submit_config(config_of("trainer", **worker_config), **{"dedup": "new", **(params or {})})
    return str(run["run_id"])


def position(harness: DaemonHarness, run_id: str) -> int:
    """Return how many episodes a run has reported."""
    return int(harness.get(run_id)["progress"]["episodes"] or 0)


def loaded(harness: DaemonHarness, run_id: str, attempt: int) -> list[dict[str, Any]]:
    """Return the checkpoint_loaded payloads of an attempt."""
    records = harness.telemetry(run_id, attempt)
    return [record["data"]["payload"] for record in records if record["kind"] == "checkpoint_loaded"]


def post_mortem(harness: DaemonHarness, run_id: str, attempt: int = 1) -> str:
    """Return the post-mortem of an attempt that was killed because it was stuck or silent."""
    return (harness.attempt(run_id, attempt) / "post-mortem.txt").read_text()


def spec_on_disk(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """Return spec.json of a run."""
    spec: dict[str, Any] = json.loads((Path(harness.state_dir) / "runs" / run_id / "spec.json").read_text())
    return spec
