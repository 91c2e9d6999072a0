"""The benchmark runs, prints every figure and leaves no file.  Not tested: how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.places import ROOT

#: Measure -> the beginnings of its lines.
ROWS = {
    "submit-to-start": (
        "submit -> first instruction, p50", "submit -> first instruction, p95",
        "submit -> durable answer, p50",
    ),
    "exit-to-start": ("exit -> the slot's next run, p50", "exit -> the slot's next run, p95"),
    "runs": ("runs of `true`",),
    "drain": ("log drain",),
    "telemetry": ("telemetry lines",),
    "daemon": ("daemon RSS", "idle CPU, daemon and launcher"),
    "live-run": ("PSS of a live run's shim, 1 alive", "PSS of a live run's shim, 4 alive"),
    "list": ("`mosaicctl list`, 100 past runs",),
}  # fmt: skip
TOGETHER = ("submit-to-start", "exit-to-start", "runs", "drain", "telemetry", "live-run")


def bench(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the benchmark as `make bench` does, with its temporary files in `directory`."""
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("measures", [TOGETHER, ("daemon", "list")], ids=lambda names: "+".join(names))
def test_every_figure_is_shown(measures: tuple[str, ...], tmp_path: Path) -> None:
    """Each measure prints its lines, writes them to the JSON with the facts of the machine, and leaves no
    file."""
    scratch, result = tmp_path / "scratch", tmp_path / "bench.json"
    scratch.mkdir()
    chosen = [word for name in measures for word in ("--only", name)]
    done = bench(scratch, "--quick", "--json", str(result), *chosen)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    titles = [title for name in measures for title in ROWS[name]]
    assert not [title for title in titles if not any(line.startswith(title) for line in lines)], done.stdout
    report = json.loads(result.read_text())
    assert [row["what"] for row in report["rows"]] == titles
    assert all(row["value"] >= 0 for row in report["rows"])
    assert {"cores", "kernel", "python", "sqlite", "filesystem"} <= report["machine"].keys()
    assert list(scratch.iterdir()) == []


def test_the_help_names_every_measure(tmp_path: Path) -> None:
    """`--help` names every measure and says how to read the figures."""
    done = bench(tmp_path, "--help")
    assert done.returncode == 0
    help_text = "".join(done.stdout.split())  # argparse breaks lines at hyphens
    assert not [name for name in ROWS if name not in help_text]
    assert "ratio" in done.stdout
