"""The write-ahead log is cut at random places while runs start and end.

No acknowledged run is lost, no run starts twice, and every exit code is exact.
"""

import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from mosaicctl.client import Disconnected, NoDaemon
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from mosaicd.protocol.states import State
from tests.daemon.lost_log import REGISTRY
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

#: Records its start, sleeps for a moment, and exits with the given code.
PROGRAM = 'echo "$MOSAIC_RUN_ID $MOSAIC_ATTEMPT" >> "$1"; sleep "$2"; exit "$3"'
SUBMITTERS = 3


class Workload:
    """Submit runs from several threads until `stop`; `expected` has the exit code of each acknowledged
    run."""

    def __init__(self, harness: DaemonHarness, starts: Path, seed: int) -> None:
        self.harness, self.starts = harness, starts
        self.expected: dict[str, int] = {}
        self.stopped = threading.Event()
        self.threads = [
            threading.Thread(target=self._submit_on, args=(random.Random(seed * 10 + n),))
            for n in range(SUBMITTERS)
        ]
        for thread in self.threads:
            thread.start()

    def _submit_on(self, dice: random.Random) -> None:
        while not self.stopped.is_set():
            code, seconds = dice.randrange(3), f"{dice.random() * 0.5:.2f}"
            command = ["sh", "-c", PROGRAM, "sh", str(self.starts), seconds, str(code)]
            params = {
                "command": command,
                "cwd": "/",
                "gpus": dice.randrange(2),
                "priority": dice.randrange(9),
            }
            try:
                with self.harness.client() as client:
                    run = client.call("run.submit", params, 5)
            except (Disconnected, NoDaemon, MosaicError):
                self.stopped.wait(0.05)
                continue
            self.expected[run["run_id"]] = code

    def stop(self) -> None:
        """Stop submitting; wait for the threads."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def cut(log: Path, dice: random.Random) -> None:
    """Truncate the log at a random place; sometimes to nothing, sometimes not at all."""
    if log.exists():
        os.truncate(log, dice.choice([0, log.stat().st_size, dice.randrange(log.stat().st_size + 1)]))


def count_starts(starts: Path) -> Counter[tuple[str, ...]]:
    """Return how often each attempt has started."""
    text = starts.read_text() if starts.exists() else ""
    return Counter(tuple(line.split()) for line in text.splitlines())


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_no_run_is_lost_if_the_log_is_cut_anywhere(build: Build, seed: int) -> None:
    """Three times, the daemon is killed under load, its log is cut and the daemon starts again; `seed` sets
    the places."""
    dice = random.Random(seed)
    harness = build(cpus={"slots": 6}, gpus={"static": 2})
    harness.allow(
        Catalogue.REGISTRY_BEHIND,
        Catalogue.REGISTRY_REBUILT,
        Catalogue.DIRECTORY_NOT_RECOVERED,
        Catalogue.SHIM_LOST,
    )
    harness.allow(Catalogue.FACT_REFUSED)
    starts = harness.home / "starts"
    expected: dict[str, int] = {}
    for round_number in range(3):
        load = Workload(harness, starts, seed * 100 + round_number)
        wanted = dice.randrange(3, 20)
        wait_until(lambda load=load: len(load.expected), lambda n, wanted=wanted: n >= wanted, "new runs")  # type: ignore[misc]
        harness.kill()
        load.stop()
        expected |= load.expected
        cut(Path(f"{harness.state_dir / REGISTRY}-wal"), dice)
        Path(f"{harness.state_dir / REGISTRY}-shm").unlink(missing_ok=True)
        harness.start()
    runs = {run_id: harness.ended(run_id, 60) for run_id in expected}

    wrong = [
        (run, expected[run["run_id"]]) for run in runs.values() if run["exit_code"] != expected[run["run_id"]]
    ]
    assert wrong == []
    assert [key for key, count in count_starts(starts).items() if count > 1] == []
    assert {key[0] for key in count_starts(starts)} >= expected.keys()
    others = [run for run in harness.call("run.list", limit=500)["runs"] if run["run_id"] not in expected]
    for run in others:  # submits without a reply: they may be committed
        assert harness.ended(run["run_id"], 60)["state"] == State.TERM
    health = harness.call("daemon.health")
    assert (health["gpus"]["free"], health["cpus"]["free"], health["quarantine"]) == (2, 6, [])
