"""Streams with exact resume: many watchers, random hang-ups, a daemon that is killed, and one ledger."""

import json
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import le
from pathlib import Path

import pytest

from mosaicd.broadcaster import notices
from mosaicd.log import Catalogue
from mosaicd.store.database import rows
from mosaicd.store.rows import read_stored_event
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

WATCHERS = Path(__file__).with_name("watchers.py")


@contextmanager
def watchers(
    harness: DaemonHarness, count: int, seed: int, events_a_life: int
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(WATCHERS), str(harness.socket), str(count), str(seed), str(events_a_life)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Writer(threading.Thread):
    """Makes events, the cheapest there are, through one connection at a time."""

    def __init__(self, harness: DaemonHarness, runs: list[str], count: int) -> None:
        super().__init__(daemon=True)
        self._path = str(harness.socket)
        self._runs = runs
        self.left = count

    def run(self) -> None:
        while self.left > 0:
            try:
                self._write()
            except OSError:
                time.sleep(0.02)  # the daemon is away

    def _write(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.connect(self._path)
            link.settimeout(20)
            answers = link.makefile("rb")
            while self.left > 0:
                batch = [
                    {"jsonrpc": "2.0", "id": n, "method": "run.set",
                     "params": {"run_id": run_id, "priority": (self.left + n) % 100}}
                    for n, run_id in enumerate(self._runs)
                ]  # fmt: skip
                link.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in batch))
                for _ in batch:
                    if not answers.readline():
                        raise ConnectionResetError
                self.left -= len(batch)


def ledger(harness: DaemonHarness) -> tuple[int, int, int]:
    """Return how many events there are, the last seq, and the checksum of all as a watcher is told them."""
    connection = sqlite3.connect(f"file:{harness.state_dir / 'registry.sqlite3'}?mode=ro", uri=True)
    try:
        events = [read_stored_event(row) for row in rows(connection, "SELECT * FROM events ORDER BY seq")]
    finally:
        connection.close()
    checksum = 0
    for event in events:
        checksum = zlib.crc32(notices.stored_body(event)[1:], checksum)
    return len(events), events[-1].seq, checksum


def peak_kib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    ("count", "events", "restarts", "seed"),
    [
        (10, 2000, 2, 1),
        pytest.param(100, 100_000, 5, 2, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_every_watchers_sequence_is_the_ledger(
    count: int, events: int, restarts: int, seed: int, build: Build
) -> None:
    """Watchers that hang up anywhere, are slow, or lose their daemon, are told every event once, in order."""
    harness = build()
    harness.allow(Catalogue.WATCHER_LAGS)
    rng = random.Random(seed)
    runs = [harness.submit("true", hold=True) for _ in range(160)]  # a harness ends one page of them
    peaks = []
    with watchers(harness, count, seed, events // 4) as process:
        writers = [Writer(harness, runs[n * 40 : n * 40 + 40], events // 4) for n in range(4)]
        began = time.monotonic()
        for writer in writers:
            writer.start()
        marks = sorted(rng.randrange(1, events) for _ in range(restarts))
        for mark in marks:
            wait_until(
                lambda: events - sum(writer.left for writer in writers), partial(le, mark),
                "the ledger grows", 300,
            )  # fmt: skip
            assert harness.process is not None
            peaks.append(peak_kib(harness.process.pid))
            harness.restart()
        for writer in writers:
            writer.join()
        written_s = time.monotonic() - began
        total, last, checksum = ledger(harness)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{last}\n")
        process.stdin.flush()
        seen = json.loads(process.stdout.readline())
    assert total >= events
    assert harness.process is not None
    peaks.append(peak_kib(harness.process.pid))
    print(
        f"\n{count} watchers, {total} events, {restarts} kills, seed {seed}: written in {written_s:.1f} s, "
        f"all told after {time.monotonic() - began:.1f} s; lives {sum(one['lives'] for one in seen)}, gaps "
        f"{sum(one['gaps'] for one in seen)}; daemon's peaks {[peak // 1024 for peak in peaks]} MiB"
    )
    for one in seen:
        assert one["is_rising"]
        assert (one["count"], one["last"], one["checksum"]) == (total, last, checksum), one
    assert max(peaks) < 250 << 10


def test_a_followed_log_survives_kills_byte_for_byte(build: Build) -> None:
    """`logs -f` over three kills of the daemon prints each byte once, in order, to the end."""
    harness = build()
    code = "import time\nfor n in range(600): print('line', n, 'x' * 50, flush=True); time.sleep(0.005)"
    run_id = harness.python(code)
    harness.until(run_id, "EXEC")
    path = harness.home / "seen"
    with open(path, "wb") as seen:
        follower = subprocess.Popen(
            harness.ctl_command("logs", "-f", run_id),
            stdout=seen, stderr=subprocess.PIPE, env=harness.environment,
        )  # fmt: skip
        try:
            for mark in (5_000, 15_000, 25_000):
                wait_until(lambda: path.stat().st_size, partial(le, mark), "output comes", 60)
                harness.restart()
            _, said = follower.communicate(timeout=60)
        finally:
            follower.kill()
    assert follower.returncode == 0, said
    assert path.read_bytes() == harness.stdout(run_id)


def test_a_slow_watcher_is_warned_of_once_an_episode(build: Build) -> None:
    """A watcher that stops reading costs one warning, with run and cursor, and can fetch what it missed."""
    harness = build(watch={"lag_events": 50})
    harness.allow(Catalogue.WATCHER_LAGS)
    run_id = harness.submit("true", hold=True)
    with harness.client() as client:
        start = client.call("run.watch", {"run_id": run_id})
        writer = Writer(harness, [run_id] * 64, 4000)
        writer.start()
        writer.join()
        seqs, gap = [], None
        while gap is None:
            note = client.next_notification(60)
            assert note is not None, "no gap came"
            method, params = note
            if method == "run.gap":
                gap = params
            else:
                seqs.append(params["seq"])
    assert seqs == list(range(start["cursor"] + 1, gap["from"]))
    with harness.client() as client:
        client.call("run.watch", {"run_id": run_id, "since": gap["from"] - 1})
        fetched = [client.next_notification(60) for _ in range(100)]
    assert [one[1]["seq"] for one in fetched if one] == list(range(gap["from"], gap["from"] + 100))
    [warning] = harness.logged(Catalogue.WATCHER_LAGS)
    assert run_id in warning and "cursor=" in warning
    harness.call("run.stop", run_id=run_id)
