"""Fifty live runs: kills of the daemon do not disturb them, and the registry stays fast while they report."""

import json
import os
import random
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mosaicd.protocol import rundir
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

RUNS, KILLS, DOWN = 50, 20, 10
#: Fifty simultaneous starts keep a small machine busy for a while, so the timeouts are long.
SLOTS = {"slots": 64}
WAITS = {"handshake_s": 60.0}
STARTED_S = 90.0
SIGNALS = (signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT)
WAL_LIMIT_BYTES = 64 << 20

#: Uses memory and CPU time, reads its fifo, prints its resource usage, and ends with a code or a signal.
PROGRAM = """
import os, resource, sys
used = bytearray(int(sys.argv[1]) << 20)
for _ in range(int(sys.argv[2])):
    sum(range(1000))
open(sys.argv[3]).read()
usage = resource.getrusage(resource.RUSAGE_SELF)
os.write(1, repr((usage.ru_utime, usage.ru_stime, usage.ru_maxrss)).encode())
end = int(sys.argv[4])
os._exit(end) if end >= 0 else (__import__("resource").setrlimit(4, (0, 0)), os.kill(os.getpid(), -end))
"""

#: Reports fifty steps a second, as a busy trainer does.
REPORTER = """
import json, sys, time
for step in range(10**9):
    print(json.dumps({"event": "step", "step": step, "payload": {"loss": 1 / (step + 1)}}), flush=True)
    time.sleep(0.02)
"""


def end_of(number: int) -> int:
    """Return how run `number` ends: an exit code, or a signal as a negative number."""
    return -SIGNALS[number % 5] if number % 5 == number // 10 else number * 5 % 256


class Fleet:
    """Fifty runs, each of which ends when its fifo is written."""

    def __init__(self, harness: DaemonHarness) -> None:
        self.harness = harness
        self.fifos = [harness.home / f"fifo{number}" for number in range(RUNS)]
        self.ids = [self._submit(number, fifo) for number, fifo in enumerate(self.fifos)]
        for run_id in self.ids:
            harness.until(run_id, "EXEC", STARTED_S)
        self.pids = [harness.get(run_id)["pid"] for run_id in self.ids]

    def _submit(self, number: int, fifo: Path) -> str:
        os.mkfifo(fifo)
        arguments = (str(number % 7 * 3), str(number % 4 * 200), str(fifo), str(end_of(number)))
        return self.harness.submit(sys.executable, "-S", "-E", "-c", PROGRAM, *arguments, dedup="new")

    def let_end(self, number: int) -> None:
        """Let run `number` end: write to its fifo."""
        with open(self.fifos[number], "w") as fifo:
            fifo.write("go")

    def has_ended(self, number: int) -> bool:
        """Return whether the process of run `number` has ended."""
        return not Path(f"/proc/{self.pids[number]}").exists()

    def faults(self, number: int) -> list[str]:
        """Compare the recorded end and usage of a run with its real end and the usage that it printed."""
        run = self.harness.ended(self.ids[number])
        end = end_of(number)
        wrong = []
        if (run["exit_code"], run["signal"]) != ((end, None) if end >= 0 else (None, -end)):
            wrong.append(f"run {number} ended with {end}, recorded is {run['exit_code']}/{run['signal']}")
        if run["outcome"] != ("succeeded" if end == 0 else "failed") or run["attempt"] != 1:
            wrong.append(f"run {number}: {run['outcome']} in attempt {run['attempt']}")
        recorded = json.loads((self.harness.attempt(run["run_id"]) / rundir.EXIT).read_text())["rusage"]
        exited = next(event for event in self.harness.events(run["run_id"]) if event["kind"] == "exited")
        if exited["rusage"] != recorded:
            wrong.append(f"run {number}: the ledger has {exited['rusage']}, exit.json has {recorded}")
        printed = eval(self.harness.stdout(run["run_id"]))  # the tuple that PROGRAM printed
        final = recorded["utime_s"], recorded["stime_s"], recorded["maxrss_kb"]
        slack = (0.2, 0.2, 4096)  # time that the machine was suspended may be charged to a running process
        if not all(a - 1e-5 <= b <= a + more for a, b, more in zip(printed, final, slack, strict=True)):
            wrong.append(f"run {number}: usage just before its end was {printed}, recorded is {final}")
        return wrong


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_runs_end_exactly_over_twenty_kills_of_the_daemon(build: Build) -> None:
    """Over 20 kills of the daemon, 50 runs end (10 while it is down) with exact codes, signals and usage."""
    seed = int(os.environ.get("MOSAIC_DRILL_SEED") or time.time_ns() % 10**6)
    rng = random.Random(seed)
    harness = build(cpus=SLOTS, timeouts=WAITS)
    fleet = Fleet(harness)
    order = rng.sample(range(RUNS), RUNS)
    ends_while_down, rest = order[:DOWN], order[DOWN:]
    began = time.monotonic()
    for kill in range(KILLS):
        for number in [rest.pop() for _ in range(rng.randrange(3))]:
            fleet.let_end(number)
        signal.sigtimedwait([], rng.uniform(0, 0.2))
        harness.kill()
        if kill % 2:
            number = ends_while_down.pop()
            fleet.let_end(number)
            wait_until(partial(fleet.has_ended, number), bool, "the run ends while the daemon is down")
        harness.start()
    alive = [number for number in rest if harness.get(fleet.ids[number])["state"] == "EXEC"]
    for number in rest:
        fleet.let_end(number)
    faults = [fault for number in range(RUNS) for fault in fleet.faults(number)]
    took_s = time.monotonic() - began
    print(f"seed {seed}: {RUNS} runs, {KILLS} kills, {len(alive)} lived through all kills, {took_s:.1f} s")
    assert alive == rest
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_hundred_submits_are_committed_fast_while_fifty_runs_report(build: Build) -> None:
    """During 100 simultaneous submits and 2,500 steps a second, transactions stay short and the WAL small."""
    harness = build(cpus=SLOTS, timeouts=WAITS, registry={"checkpoint_interval_s": 2.0})
    for _ in range(RUNS):
        harness.python(REPORTER, dedup="new")
    health_of = partial(harness.call, "daemon.health")
    wait_until(health_of, lambda health: health["counts"].get("EXEC") == RUNS, "50 runs in EXEC", STARTED_S)
    with SyncMeter(harness.home) as disk:
        harness.restart()  # the starts of the runs are not measured
        since, attached = time.time(), "every shim has registered again"
        wait_until(lambda: count_heartbeats(harness, since), lambda count: count == RUNS, attached, STARTED_S)
        before = harness.call("daemon.health")["writes"]
        answers = submit_at_once(harness, 100)
        after = harness.call("daemon.health")["writes"]
    wal = (harness.state_dir / "registry.sqlite3-wal").stat().st_size
    slowest = max(took_s for _, took_s in answers)
    writes, mean, most = after["count"] - before["count"], after["mean_s"] * 1000, after["slowest_s"] * 1000
    print(f"{writes} transactions: mean {mean:.2f} ms, slowest {most:.1f} ms")
    print(f"slowest answer {slowest * 1000:.0f} ms; WAL {wal} bytes; {disk}")
    assert len({run_id for run_id, _ in answers}) == 100
    # The aim is 50 ms, and the figure is printed; on a busy machine not only the disk is slow.
    assert after["mean_s"] < 0.2 + 3 * disk.mean_s
    assert after["slowest_s"] < 2 + 3 * disk.slowest_s
    assert wal < WAL_LIMIT_BYTES


def count_heartbeats(harness: DaemonHarness, since: float) -> int:
    """Return how many live runs have sent a heartbeat after `since`."""
    runs = harness.call("run.list", live=True)["runs"]
    return sum((run["last_heartbeat_at"] or 0) > since for run in runs)


class SyncMeter(threading.Thread):
    """Measures small writes with fsync on this machine while the block runs, for comparison."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self._path = directory / "synced"
        self._is_over = threading.Event()
        self._taken: list[float] = []

    def run(self) -> None:
        """Write a page, sync it, wait as long as that took, and repeat."""
        with open(self._path, "wb", buffering=0) as file:
            while not self._is_over.wait(self._taken[-1] if self._taken else 0.0):
                began = time.monotonic()
                file.write(b"x" * 4096)
                os.fsync(file.fileno())
                self._taken.append(time.monotonic() - began)

    def __enter__(self) -> "SyncMeter":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    @property
    def mean_s(self) -> float:
        return sum(self._taken) / max(1, len(self._taken))

    @property
    def slowest_s(self) -> float:
        return max(self._taken, default=0.0)

    def __str__(self) -> str:
        return f"fsync of one page: mean {self.mean_s * 1000:.2f} ms, slowest {self.slowest_s * 1000:.1f} ms"


def submit_at_once(harness: DaemonHarness, count: int) -> list[tuple[str, float]]:
    """Submit from `count` threads simultaneously; return the run ids and the seconds until each answer."""
    answers: list[tuple[str, float]] = []
    gate = threading.Barrier(count)

    def submit() -> None:
        with harness.client() as client:
            gate.wait()
            began = time.monotonic()
            params: dict[str, Any] = {"command": ["true"], "cwd": "/", "dedup": "new"}
            run = client.call("run.submit", params)
            answers.append((run["run_id"], time.monotonic() - began))
            harness.run_ids.add(run["run_id"])

    threads = [threading.Thread(target=submit) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers
