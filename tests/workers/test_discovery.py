"""Discovery: every installed worker is listed; a broken worker does not affect the others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mosaic_worker
from mosaic_tabular import get_worker_metadata

from tests.workers.process import environment

TABULAR = "mosaic_tabular:get_worker_metadata"

NEIGHBOURS = {
    "raises": "raise RuntimeError('no GPU library here')\n",
    "leaves": "import os\nos._exit(3)\n",
    "crashes": "import os\nos.abort()\n",
    "exits": "import sys\nsys.exit('bye')\n",
    "shapeless": "def get_worker_metadata():\n    return 'hello'\n",
    "typeless": "def get_worker_metadata():\n    return {'name': 'x'}, {'max_agents': 1}\n",
    "talks": (
        'print(\'{"not": "the answer"}\')\n'
        "WORKER_MODULE = 'talks.special'\n"
        "def get_config_schema():\n    return {'type': 'object'}\n"
        "class Info:\n    def __init__(self, **fields):\n        self.__dict__.update(fields)\n"
        "def get_worker_metadata():\n"
        "    return Info(name='Talks', version='2'), Info(worker_type='talks', action_spaces=('discrete',))\n"
    ),
}


def install(
    site: Path, name: str, code: str | None, value: str | None = None, dist: str | None = None
) -> None:
    """Put a distribution with one worker into the directory `site`, as an installer would."""
    distribution = dist or f"{name}-worker"
    info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(
        f"[mosaic.workers]\n{name} = {value or name + ':get_worker_metadata'}\n"
    )
    if code is not None:
        (site / f"{name}.py").write_text(code)


def discover(site: Path, *flags: str, by_path: bool = False) -> dict[str, dict[str, Any]]:
    """Run discovery in a new interpreter whose path begins with `site`; return kind -> worker."""
    env = environment()
    program = ["-m", "mosaic_worker.discovery"]
    env["PYTHONPATH"] = f"{site}:{env['PYTHONPATH']}"
    if by_path:
        env["PYTHONPATH"] = str(site)
        program = [str(Path(mosaic_worker.__file__).with_name("discovery.py"))]
    done = subprocess.run(
        [sys.executable, *program, "--json", *flags],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["python"] == sys.executable
    return {worker["kind"]: worker for worker in answer["workers"] if worker["distribution_version"] == "1.5"}


def test_installed_worker_is_listed_beside_broken_ones(tmp_path: Path) -> None:
    """Metadata, capabilities, module and config schema of a worker are listed, also beside broken workers."""
    install(tmp_path, "tabular", None, TABULAR, "mosaic-tabular")
    for name, code in NEIGHBOURS.items():
        install(tmp_path, name, code)
    install(tmp_path, "absent", None)
    workers = discover(tmp_path)
    assert workers.keys() == {"tabular", "absent", *NEIGHBOURS}
    metadata, capabilities = get_worker_metadata()
    tabular = workers["tabular"]
    assert tabular["error"] is None
    assert tabular["metadata"] == metadata.to_dict()
    assert tabular["capabilities"] == capabilities.to_dict()
    assert (tabular["module"], tabular["accepts_worker_id"]) == ("mosaic_tabular", True)
    assert tabular["config_schema"]["properties"]["algo"]["enum"] == ["q_learning", "sarsa"]
    check_neighbours(workers)


def check_neighbours(workers: dict[str, dict[str, Any]]) -> None:
    """Check that each broken worker has its error; a foreign class and stray output are no error."""
    expected = {
        "raises": "RuntimeError: no GPU library here (exit code 1)",
        "leaves": "no answer (exit code 3)",
        "exits": "bye (exit code 1)",
    }
    assert {name: workers[name]["error"] for name in expected} == expected
    assert "killed by signal 6" in workers["crashes"]["error"]
    assert "must return (metadata, capabilities)" in workers["shapeless"]["error"]
    assert "no worker_type" in workers["typeless"]["error"]
    assert "No module named 'absent'" in workers["absent"]["error"]
    talks = workers["talks"]
    assert (talks["error"], talks["module"], talks["config_schema"]) == (
        None,
        "talks.special",
        {"type": "object"},
    )
    assert talks["capabilities"] == {"worker_type": "talks", "action_spaces": ["discrete"]}


def test_worker_that_hangs_is_listed_with_an_error(tmp_path: Path) -> None:
    """A worker that does not load in time is listed with an error; the other workers are listed too."""
    install(tmp_path, "hangs", "import threading\nthreading.Event().wait()\n")
    install(tmp_path, "talks", NEIGHBOURS["talks"])
    workers = discover(tmp_path, "--timeout-s", "5")
    assert workers["hangs"]["error"] == "not loaded within 5 s"
    assert workers["talks"]["error"] is None


def test_discovery_works_without_the_sdk(tmp_path: Path) -> None:
    """discovery.py, run by its path, lists the workers of an environment without mosaic_worker."""
    install(tmp_path, "talks", NEIGHBOURS["talks"])
    package = tmp_path / "older_worker"
    package.mkdir()
    (package / "cli.py").write_text("")
    (package / "__init__.py").write_text(NEIGHBOURS["talks"].replace("WORKER_MODULE = 'talks.special'\n", ""))
    install(tmp_path, "older", None, "older_worker:get_worker_metadata")
    workers = discover(tmp_path, by_path=True)
    assert workers["talks"]["error"] is None
    assert workers["older"]["module"] == "older_worker.cli"


def test_second_worker_of_one_name_has_an_error(tmp_path: Path) -> None:
    """If two distributions have a worker of one name, both are listed, the second with an error."""
    install(tmp_path, "twin", NEIGHBOURS["talks"])
    install(tmp_path, "twin", None, None, "other-twin")
    done = subprocess.run(
        [sys.executable, "-m", "mosaic_worker.discovery", "--json"],
        env={**environment(), "PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    twins = [worker for worker in json.loads(done.stdout)["workers"] if worker["kind"] == "twin"]
    assert [worker["error"] is None for worker in twins] == [True, False]
    assert "another distribution" in twins[1]["error"]
