"""Fifty live runs at once: a daemon that dies again and again does not disturb them, and writes fast."""

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
#: Fifty at once keep a small machine busy for a while.
SLOTS = {"slots": 64}
WAITS = {"handshake_s": 60.0}
STARTED_S = 90.0
SIGNALS = (signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT)
WAL_LIMIT_BYTES = 64 << 20

#: Uses some memory and processor, waits for a word, says what the kernel charged it so far, and ends.
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

#: Reports steps as fast as a busy trainer does: fifty a second.
REPORTER = """
import json, sys, time
for step in range(10**9):
    print(json.dumps({"event": "step", "step": step, "payload": {"loss": 1 / (step + 1)}}), flush=True)
    time.sleep(0.02)
"""


def end_of(number: int) -> int:
    """How run `number` ends: a code, or a signal as a negative number."""
    return -SIGNALS[number % 5] if number % 5 == number // 10 else number * 5 % 256


class Fleet:
    """Fifty runs, each waiting at a fifo for the word to end."""

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
        """Say the word."""
        with open(self.fifos[number], "w") as fifo:
            fifo.write("go")

    def has_ended(self, number: int) -> bool:
        """Whether the process is gone."""
        return not Path(f"/proc/{self.pids[number]}").exists()

    def trouble(self, number: int) -> list[str]:
        """Compare what is told of a run with what it was, and with what the kernel charged it."""
        run = self.harness.ended(self.ids[number])
        end = end_of(number)
        wrong = []
        if (run["exit_code"], run["signal"]) != ((end, None) if end >= 0 else (None, -end)):
            wrong.append(f"run {number} ended with {end}, told is {run['exit_code']}/{run['signal']}")
        if run["outcome"] != ("succeeded" if end == 0 else "failed") or run["attempt"] != 1:
            wrong.append(f"run {number}: {run['outcome']} in attempt {run['attempt']}")
        recorded = json.loads((self.harness.attempt(run["run_id"]) / rundir.EXIT).read_text())["rusage"]
        told = next(event for event in self.harness.events(run["run_id"]) if event["kind"] == "exited")
        if told["rusage"] != recorded:
            wrong.append(f"run {number}: the ledger has {told['rusage']}, exit.json {recorded}")
        said = eval(self.harness.stdout(run["run_id"]))  # our own program's tuple
        now = recorded["utime_s"], recorded["stime_s"], recorded["maxrss_kb"]
        slack = (0.2, 0.2, 4096)  # time that the machine was suspended may be charged to a running process
        if not all(a - 1e-5 <= b <= a + more for a, b, more in zip(said, now, slack, strict=True)):
            wrong.append(f"run {number}: it was charged {said} a moment before its end, told is {now}")
        return wrong


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_kills_of_the_daemon(build: Build) -> None:
    """50 live runs, 20 x kill -9 at random, 10 end while it is down: codes, signals and usage are exact."""
    seed = int(os.environ.get("MOSAIC_DRILL_SEED") or time.time_ns() % 10**6)
    dice = random.Random(seed)
    harness = build(cpus=SLOTS, timeouts=WAITS)
    fleet = Fleet(harness)
    order = dice.sample(range(RUNS), RUNS)
    down, rest = order[:DOWN], order[DOWN:]
    began = time.monotonic()
    for kill in range(KILLS):
        for number in [rest.pop() for _ in range(dice.randrange(3))]:
            fleet.let_end(number)
        signal.sigtimedwait([], dice.uniform(0, 0.2))
        harness.kill()
        if kill % 2:
            number = down.pop()
            fleet.let_end(number)
            wait_until(partial(fleet.has_ended, number), bool, "the run ends while the daemon is down")
        harness.start()
    alive = [number for number in rest if harness.get(fleet.ids[number])["state"] == "EXEC"]
    for number in rest:
        fleet.let_end(number)
    trouble = [fault for number in range(RUNS) for fault in fleet.trouble(number)]
    took_s = time.monotonic() - began
    print(f"seed {seed}: {RUNS} runs, {KILLS} kills, {len(alive)} lived through all, {took_s:.1f} s")
    assert alive == rest
    assert not trouble, "\n".join(trouble)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_submits_while_fifty_report(build: Build) -> None:
    """100 submits at once while 50 runs report 50 steps a second: writes stay short, the WAL capped."""
    harness = build(cpus=SLOTS, timeouts=WAITS, registry={"checkpoint_interval_s": 2.0})
    for _ in range(RUNS):
        harness.python(REPORTER, dedup="new")
    counts = partial(harness.call, "daemon.health")
    wait_until(counts, lambda health: health["counts"].get("EXEC") == RUNS, "50 work", STARTED_S)
    with Syncing(harness.home) as disk:
        harness.restart()  # its own start is not what is measured
        since, attached = time.time(), "every shim has registered again"
        wait_until(lambda: heard_of(harness, since), lambda count: count == RUNS, attached, STARTED_S)
        before = harness.call("daemon.health")["writes"]
        answers = submit_at_once(harness, 100)
        after = harness.call("daemon.health")["writes"]
    wal = (harness.state_dir / "registry.sqlite3-wal").stat().st_size
    slowest = max(took_s for _, took_s in answers)
    writes, mean, most = after["count"] - before["count"], after["mean_s"] * 1000, after["slowest_s"] * 1000
    print(f"{writes} transactions: mean {mean:.2f} ms, slowest {most:.1f} ms")
    print(f"slowest answer {slowest * 1000:.0f} ms; WAL {wal} bytes; {disk}")
    assert len({run_id for run_id, _ in answers}) == 100
    # 50 ms is the aim, and printed; on a machine that does something else too, more than writes is slow
    assert after["mean_s"] < 0.2 + 3 * disk.mean_s
    assert after["slowest_s"] < 2 + 3 * disk.slowest_s
    assert wal < WAL_LIMIT_BYTES


def heard_of(harness: DaemonHarness, since: float) -> int:
    """How many live runs have shown life since then."""
    runs = harness.call("run.list", live=True)["runs"]
    return sum((run["last_heartbeat_at"] or 0) > since for run in runs)


class Syncing(threading.Thread):
    """What a small write and its fsync take on this machine, again and again while the block runs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self._path = directory / "synced"
        self._is_over = threading.Event()
        self._taken: list[float] = []

    def run(self) -> None:
        """Write a page, sync it, and wait as long as that took."""
        with open(self._path, "wb", buffering=0) as file:
            while not self._is_over.wait(self._taken[-1] if self._taken else 0.0):
                began = time.monotonic()
                file.write(b"x" * 4096)
                os.fsync(file.fileno())
                self._taken.append(time.monotonic() - began)

    def __enter__(self) -> "Syncing":
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
        return f"a sync beside it: mean {self.mean_s * 1000:.2f} ms, slowest {self.slowest_s * 1000:.1f} ms"


def submit_at_once(harness: DaemonHarness, count: int) -> list[tuple[str, float]]:
    """Submit from `count` threads at one moment; return ids and how long each answer took."""
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
