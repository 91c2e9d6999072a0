"""No acknowledged write is lost after a kill -9 of the committing process at any time."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mosaicd.core.fsm import replay
from mosaicd.store.database import rows
from mosaicd.store.rows import read_event, read_run
from tests.harness.places import ROOT


@contextmanager
def committer(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.store.committer", str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    try:
        yield child
    finally:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        child.stdout.close()
        child.wait(30)


def lines_of(child: subprocess.Popen[bytes], pending: bytearray) -> Iterator[list[str]]:
    """Yield the lines of the child, split into words."""
    assert child.stdout is not None
    while True:
        line, found, rest = bytes(pending).partition(b"\n")
        if found:
            pending[:] = rest
            yield line.decode().split()
            continue
        more = os.read(child.stdout.fileno(), 65536)
        assert more, "the committer must run until it is killed"
        pending += more


def run_and_kill(child: subprocess.Popen[bytes], seed: int, kill_after: int, newest: dict[str, int]) -> None:
    """Start a committer, kill it after `kill_after` acknowledgements, and add all of them to `newest`."""
    assert child.stdin is not None
    child.stdin.write(f"{seed}\n".encode())
    pid, seen = 0, 0
    for line in lines_of(child, bytearray()):
        if line[0] == "pid":
            pid = int(line[1])
        elif line[0] == "dead":
            return
        else:
            newest[line[2]] = max(newest.get(line[2], 0), int(line[3]))
            seen += 1
        if pid and seen >= kill_after:
            os.kill(pid, signal.SIGKILL)
            kill_after = sys.maxsize


def check(path: Path, newest: dict[str, int]) -> int:
    """Check that every acknowledged revision exists and that ledger and rows agree; return the last seq."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        revs = dict(connection.execute("SELECT run_id, rev FROM runs"))
        lost = {run_id: rev for run_id, rev in newest.items() if revs.get(run_id, 0) < rev}
        assert not lost
        assert connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        unequal = connection.execute(
            "SELECT runs.run_id FROM runs JOIN events USING (run_id) GROUP BY run_id "
            "HAVING max(events.rev) <> runs.rev OR count(*) <> runs.rev"
        ).fetchall()
        assert not unequal
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    finally:
        connection.close()


def kill_many(path: Path, kills: int) -> None:
    random_numbers = random.Random(kills)
    newest: dict[str, int] = {}
    last = 0
    with committer(path) as child:
        for seed in range(kills):
            run_and_kill(child, seed, random_numbers.choice([0, 1, 2, 5, 20, 60]), newest)
            if seed % 20 == 19:
                seq = check(path, newest)
                assert seq >= last
                last = seq
    check(path, newest)
    assert len(newest) > kills / 2
    connection = sqlite3.connect(path)
    for row in rows(connection, "SELECT * FROM runs ORDER BY n DESC LIMIT 300"):
        events = rows(connection, "SELECT * FROM events WHERE run_id = ? ORDER BY rev", (row["run_id"],))
        assert replay([read_event(event) for event in events]) == read_run(row)
    connection.close()


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """After 200 kills at random moments every acknowledged revision exists, and ledger and rows agree."""
    kill_many(path, 200)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_thousand_kills_lose_nothing_that_was_acknowledged(path: Path) -> None:
    """The guarantee holds for 2000 kills on one registry."""
    kill_many(path, 2000)
