"""A private daemon with the product's default settings, and the requests of the benchmarks."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mosaicctl.client import Client
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

DEADLINE_S = 120.0
#: Runs `mosaicctl` without the imports of the script that pip writes.
CTL = "import sys; from mosaicctl.__main__ import main; sys.exit(main())"


class Failed(AssertionError):
    """The daemon failed at something that a benchmark needs."""


@contextmanager
def private_daemon(slots: int) -> Iterator[DaemonHarness]:
    """Run a daemon with `slots` CPU slots; at the end, stop its runs and the daemon, and remove its
    directory.

    Raise Failed if a process leaked, the daemon warned, or its registry does not follow from its events.
    """
    home = Path(tempfile.mkdtemp(prefix="mosaic-bench-"))
    harness = DaemonHarness(home, {"cpus": {"slots": slots}, "gpus": {"static": 0}}, defaults={})
    trouble: list[str] = []
    try:
        harness.start()
        yield harness
    finally:
        trouble = harness.close()
        shutil.rmtree(home, ignore_errors=True)
    if trouble:
        raise Failed("\n".join(trouble))


def submit(client: Client, harness: DaemonHarness, *command: str) -> str:
    """Submit a command and return the run's id."""
    return str(client.call("run.submit", {"command": list(command), "cwd": str(harness.home)})["run_id"])


def ended(client: Client, run_id: str) -> dict[str, Any]:
    """Wait for the end of a run that must succeed."""
    run: dict[str, Any] = client.call("run.wait", {"run_id": run_id, "timeout_s": DEADLINE_S}, DEADLINE_S + 5)
    if run["outcome"] != "succeeded":
        raise Failed(f"a run of the benchmark ended {run['outcome']}: {run['cause']}")
    return run


def all_ended(client: Client) -> None:
    """Wait until no run is live; the pauses are long, because requests cost time that is measured."""
    live = {"live": True, "limit": 1}
    wait_until(
        lambda: client.call("run.list", live)["runs"],
        lambda runs: not runs,
        "all runs have ended",
        DEADLINE_S,
        pause=lambda: time.sleep(0.02),
    )


def record(harness: DaemonHarness, run_id: str, name: str) -> dict[str, Any]:
    """Return a record of the run's first attempt, by its file name."""
    content: dict[str, Any] = json.loads((harness.attempt(run_id) / name).read_bytes())
    return content
