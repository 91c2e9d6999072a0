"""The example worker in mosaic-worker(7) runs, stops, resumes and prints valid lines."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.workers.lines import checked
from tests.workers.process import DEADLINE_S, environment

MANUAL = Path(__file__).parents[2] / "man" / "mosaic-worker.7"


def example() -> str:
    """Return the program in the section EXAMPLES of the manual."""
    blocks = re.findall(r"^\.Bd -literal\n(.*?)^\.Ed$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = [block for block in blocks if "def main" in block]
    return textwrap.dedent(program)


def test_example_of_the_manual_stops_and_resumes(tmp_path: Path) -> None:
    """The example stops on SIGTERM, resumes in the next start and ends with run_completed."""
    (tmp_path / "coin.py").write_text(example())
    (tmp_path / "config.json").write_text('{"run_id": "r", "episodes": 200000}')
    command = [sys.executable, "coin.py", "--config", "config.json"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        head = [checked(first.stdout.readline()) for _ in range(20)]
        first.send_signal(signal.SIGTERM)
        lines = head + [checked(raw) for raw in first.stdout]
    assert first.returncode == 0
    assert [line["event"] for line in lines if "event" in line] == [
        "run_started",
        "checkpoint_saved",
        "run_cancelled",
    ]
    done_so_far = sum(line.get("type") == "episode" for line in lines)
    (tmp_path / "config.json").write_text(f'{{"run_id": "r", "episodes": {done_so_far + 50}}}')
    again = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, timeout=DEADLINE_S, check=True
    )
    lines = [checked(raw) for raw in again.stdout.splitlines(keepends=True)]
    assert [line["event"] for line in lines if "event" in line] == [
        "run_started",
        "checkpoint_loaded",
        "run_completed",
    ]
    assert [line["episode_index"] for line in lines if "type" in line] == list(
        range(done_so_far, done_so_far + 50)
    )


def test_manual_has_every_variable_of_the_sdk() -> None:
    """Every variable that the SDK reads is in the manual."""
    source = (
        Path(environment()["PYTHONPATH"].split(os.pathsep)[0]) / "mosaic_worker" / "environment.py"
    ).read_text()
    text = MANUAL.read_text()
    assert not [name for name in re.findall(r'env\.get\("(\w+)"\)', source) if name not in text]
