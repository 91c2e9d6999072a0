"""A worker in an environment of its own, which has no library of ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.building import Build
from tests.harness.places import ROOT

# A worker without mosaic_worker.  It says which modules of ours its interpreter can import.
COIN = """
import importlib.util, json, sys

def get_worker_metadata():
    return {"name": "Coin"}, {"worker_type": "coin", "supports_pause_resume": False}

def get_config_schema():
    return {"type": "object", "properties": {"episodes": {"type": "integer"}}}

WORKER_MODULE = "coin"

if __name__ == "__main__":
    ours = [name for name in ("mosaic_worker", "mosaicd") if importlib.util.find_spec(name)]
    print(json.dumps({"event": "run_started", "ours": ours, "prefix": sys.prefix}), flush=True)
    print(json.dumps({"event": "run_completed"}), flush=True)
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """Return the interpreter of a virtual environment that has the worker `coin` and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (site / "coin.py").write_text(COIN)
    info = site / "coin_worker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coin-worker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mosaic.workers]\ncoin = coin:get_worker_metadata\n")
    return str(tmp_path / "env/bin/python")


@pytest.mark.parametrize("module", [{}, {"module": "coin"}])
def test_a_worker_environment_needs_no_mosaic_worker(
    build: Build, interpreter: str, module: dict[str, str]
) -> None:
    """`workers` lists a worker whose environment lacks mosaic_worker, with capabilities and schema, and
    `run --worker` runs it there."""
    found = subprocess.run(
        [interpreter, "-c", "import mosaic_worker"], capture_output=True, cwd="/", check=False
    )
    assert b"No module named 'mosaic_worker'" in found.stderr
    settings: dict[str, Any] = {"workers.coin": {"python": interpreter, **module}}
    harness = build(**settings)
    described: dict[str, Any] = json.loads(harness.ctl("-o", "json", "workers", "coin").stdout)
    assert described["error"] is None
    assert (described["module"], described["python"]) == ("coin", interpreter)
    assert described["capabilities"]["worker_type"] == "coin"
    assert described["config_schema"]["properties"].keys() == {"episodes"}

    command = ("-o", "json", "run", "--env-drop", "PYTHONPATH", "--worker", "coin", "--set", "episodes=1")
    run = json.loads(harness.ctl(*command).stdout)
    harness.run_ids.add(run["run_id"])
    assert (run["outcome"], run["worker_kind"]) == ("succeeded", "coin")
    first = json.loads(harness.stdout(run["run_id"]).splitlines()[0])
    assert first["ours"] == [] and first["prefix"] == str(Path(interpreter).parents[1])


def test_the_file_that_the_daemon_runs_is_in_the_wheel() -> None:
    """A checkout and a wheel have the same file: pyproject.toml puts it where the daemon looks for it."""
    import tomllib

    from mosaicd.upkeep.discovery import discovery_file

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    ((source, target),) = wheel["force-include"].items()
    assert discovery_file() == ROOT / source and discovery_file().is_file()
    assert target == "mosaicd/upkeep/list_workers.py"
