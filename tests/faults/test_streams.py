"""Event streams with exact resume: watchers that disconnect at random, and a daemon that is killed."""

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
    harness: DaemonHarness, count: int, seed: int, events_a_connection: int
) -> Iterator["subprocess.Popen[str]"]:
    arguments = [str(harness.socket), str(count), str(seed), str(events_a_connection)]
    command = [sys.executable, str(WATCHERS), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Writer(threading.Thread):
    """Creates cheap events (run.set) through one connection; connects again after a restart of the daemon."""

    def __init__(self, harness: DaemonHarness, runs: list[str], count: int) -> None:
        super().__init__(daemon=True)
        self._path = str(harness.socket)
        self._runs = runs
        self.remaining = count

    def run(self) -> None:
        while self.remaining > 0:
            try:
                self._write()
            except OSError:
                time.sleep(0.02)  # the daemon is restarting

    def _write(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.connect(self._path)
            link.settimeout(20)
            answers = link.makefile("rb")
            while self.remaining > 0:
                batch = [
                    {"jsonrpc": "2.0", "id": n, "method": "run.set",
                     "params": {"run_id": run_id, "priority": (self.remaining + n) % 100}}
                    for n, run_id in enumerate(self._runs)
                ]  # fmt: skip
                link.sendall(b"".join(json.dumps(request).encode() + b"\n" for request in batch))
                for _ in batch:
                    if not answers.readline():
                        raise ConnectionResetError
                self.remaining -= len(batch)


def ledger(harness: DaemonHarness) -> tuple[int, int, int]:
    """Return the number of events, the last seq, and the checksum of the events as watchers get them."""
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
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize(
    ("count", "events", "restarts", "seed"),
    [
        (10, 2000, 2, 1),
        pytest.param(100, 100_000, 5, 2, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_every_watcher_receives_each_event_once_in_order(
    count: int, events: int, restarts: int, seed: int, build: Build
) -> None:
    """Watchers that disconnect, read slowly or lose their daemon receive every event once and in order."""
    harness = build()
    harness.allow(Catalogue.WATCHER_LAGS)
    rng = random.Random(seed)
    runs = [
        harness.submit("true", hold=True) for _ in range(160)
    ]  # at the end a harness stops one page of runs
    peaks = []
    with watchers(harness, count, seed, events // 4) as process:
        writers = [Writer(harness, runs[n * 40 : n * 40 + 40], events // 4) for n in range(4)]
        began = time.monotonic()
        for writer in writers:
            writer.start()
        marks = sorted(rng.randrange(1, events) for _ in range(restarts))
        for mark in marks:
            wait_until(
                lambda: events - sum(writer.remaining for writer in writers), partial(le, mark),
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
    connections = sum(watcher["connections"] for watcher in seen)
    print(
        f"\n{count} watchers, {total} events, {restarts} kills, seed {seed}: written in {written_s:.1f} s, "
        f"received after {time.monotonic() - began:.1f} s; {connections} connections, "
        f"{sum(each['gaps'] for each in seen)} gaps; daemon's peaks {[peak // 1024 for peak in peaks]} MiB"
    )
    for watcher in seen:
        assert watcher["is_rising"]
        assert (watcher["count"], watcher["last"], watcher["checksum"]) == (total, last, checksum), watcher
    assert max(peaks) < 250 << 10


def test_followed_log_is_complete_over_kills_of_the_daemon(build: Build) -> None:
    """`logs -f` prints each byte once and in order, to the end, over three kills of the daemon."""
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
                wait_until(lambda: path.stat().st_size, partial(le, mark), f"{mark} bytes of output", 60)
                harness.restart()
            _, errors = follower.communicate(timeout=60)
        finally:
            follower.kill()
    assert follower.returncode == 0, errors
    assert path.read_bytes() == harness.stdout(run_id)


def test_slow_watcher_gets_one_gap_and_one_warning_is_logged(build: Build) -> None:
    """A watcher that stops reading gets run.gap and can fetch the missed events; one warning is logged."""
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
            assert note is not None, "no run.gap within 60 s"
            method, params = note
            if method == "run.gap":
                gap = params
            else:
                seqs.append(params["seq"])
    assert seqs == list(range(start["cursor"] + 1, gap["from"]))
    with harness.client() as client:
        client.call("run.watch", {"run_id": run_id, "since": gap["from"] - 1})
        fetched = [client.next_notification(60) for _ in range(100)]
    assert [event[1]["seq"] for event in fetched if event] == list(range(gap["from"], gap["from"] + 100))
    [warning] = harness.logged(Catalogue.WATCHER_LAGS)
    assert run_id in warning and "cursor=" in warning
    harness.call("run.stop", run_id=run_id)
