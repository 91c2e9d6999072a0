"""The write-ahead log is cut anywhere, again and again, under runs that come and go: nothing acknowledged is
lost, nothing starts twice, every end is exact."""

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

#: Says that it begins, works for a moment, and ends with the code that it is told.
PROGRAM = 'echo "$MOSAIC_RUN_ID $MOSAIC_ATTEMPT" >> "$1"; sleep "$2"; exit "$3"'
SUBMITTERS = 3


class Workload:
    """Submits until told to stop; `meant` is what every acknowledged run is to end with."""

    def __init__(self, harness: DaemonHarness, starts: Path, seed: int) -> None:
        self.harness, self.starts = harness, starts
        self.meant: dict[str, int] = {}
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=self._submit_on, args=(random.Random(seed * 10 + n),))
            for n in range(SUBMITTERS)
        ]
        for thread in self.threads:
            thread.start()

    def _submit_on(self, dice: random.Random) -> None:
        while not self.over.is_set():
            code, seconds = dice.randrange(3), f"{dice.random() * 0.5:.2f}"
            command = ["sh", "-c", PROGRAM, "sh", str(self.starts), seconds, str(code)]
            asked = {"command": command, "cwd": "/", "gpus": dice.randrange(2), "priority": dice.randrange(9)}
            try:
                with self.harness.client() as client:
                    run = client.call("run.submit", asked, 5)
            except (Disconnected, NoDaemon, MosaicError):
                self.over.wait(0.05)
                continue
            self.meant[run["run_id"]] = code

    def stop(self) -> None:
        """Stop all submits."""
        self.over.set()
        for thread in self.threads:
            thread.join()


def cut(log: Path, dice: random.Random) -> None:
    """Leave the beginning of the log, as long as chance has it; a whole one now and then."""
    if log.exists():
        os.truncate(log, dice.choice([0, log.stat().st_size, dice.randrange(log.stat().st_size + 1)]))


def begun(starts: Path) -> Counter[tuple[str, ...]]:
    text = starts.read_text() if starts.exists() else ""
    return Counter(tuple(line.split()) for line in text.splitlines())


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_a_log_cut_anywhere_costs_no_run(build: Build, seed: int) -> None:
    """By seed, which also says where: killed under load, log cut, started again, three times over."""
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
    meant: dict[str, int] = {}
    for turn in range(3):
        load = Workload(harness, starts, seed * 100 + turn)
        wanted = dice.randrange(3, 20)
        wait_until(lambda load=load: len(load.meant), lambda n, wanted=wanted: n >= wanted, "runs come")  # type: ignore[misc]
        harness.kill()
        load.stop()
        meant |= load.meant
        cut(Path(f"{harness.state_dir / REGISTRY}-wal"), dice)
        Path(f"{harness.state_dir / REGISTRY}-shm").unlink(missing_ok=True)
        harness.start()
    runs = {run_id: harness.ended(run_id, 60) for run_id in meant}

    wrong = [(run, meant[run["run_id"]]) for run in runs.values() if run["exit_code"] != meant[run["run_id"]]]
    assert wrong == []
    assert [key for key, count in begun(starts).items() if count > 1] == []
    assert {key[0] for key in begun(starts)} >= meant.keys()
    others = [run for run in harness.call("run.list", limit=500)["runs"] if run["run_id"] not in meant]
    for run in others:  # submits whose reply a kill swallowed: committed, so they may be there, and end
        assert harness.ended(run["run_id"], 60)["state"] == State.TERM
    health = harness.call("daemon.health")
    assert (health["gpus"]["free"], health["cpus"]["free"], health["quarantine"]) == (2, 6, [])
