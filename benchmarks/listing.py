"""Time of `mosaicctl list` with thousands of past runs, compared with `python -c pass`.

The past runs are copies of one real run and its events, written into the registry while no daemon runs.
"""

import sqlite3
import subprocess
import sys
import time

from benchmarks import plain
from benchmarks.harness import CTL, ended, private_daemon, submit
from benchmarks.rows import Row, Target, of_rounds
from mosaicd.protocol import ulid
from tests.harness.daemon import DaemonHarness

TARGET = Target(5.0, of_ratio=True)
REGISTRY = "registry.sqlite3"


def listing(is_quick: bool) -> list[Row]:
    """Measure the command at 1,000 and 10,000 past runs."""
    rows = []
    with private_daemon(slots=2) as harness:
        with harness.client() as client:
            model = submit(client, harness, "true")
            ended(client, model)
        past = 1
        for wanted in (100,) if is_quick else (1_000, 10_000):
            harness.stop()
            _write_past(harness, model, past, wanted)
            past = wanted
            harness.start()
            rows.append(_timed(harness, wanted, 3 if is_quick else 25))
    return rows


def _timed(harness: DaemonHarness, past: int, rounds: int) -> Row:
    ours, beside = [], []
    for _ in range(rounds):
        beside.append(1000 * plain.python_pass_s())
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", CTL, "--socket", str(harness.socket), "list"],
            env=harness.environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        ours.append(1000 * (time.monotonic() - began))
    what = f"`mosaicctl list`, {past} past runs"
    return of_rounds("list", what, "ms", ours, beside, "python -c pass", TARGET, f"n = {rounds}")


def _write_past(harness: DaemonHarness, model: str, first: int, end: int) -> None:
    """Copy the model's row and events under new ids until there are `end` runs."""
    connection = sqlite3.connect(harness.state_dir / REGISTRY)
    try:
        with connection:
            runs, events = _columns(connection, "runs", "n"), _columns(connection, "events", "seq")
            for number in range(first, end):
                run_id = ulid.encode(int(time.time() * 1000), number.to_bytes(10, "big"))
                _copy(connection, "runs", runs, model, run_id)
                _copy(connection, "events", events, model, run_id)
    finally:
        connection.close()


def _columns(connection: sqlite3.Connection, table: str, key: str) -> list[str]:
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return [name for name in names if name != key]


def _copy(connection: sqlite3.Connection, table: str, columns: list[str], model: str, run_id: str) -> None:
    special = {
        "run_id": ":run_id",
        **{name: f"replace({name}, :model, :run_id)" for name in ("body", "data")},
    }
    new = ", ".join(special.get(name, name) for name in columns)
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {new} FROM {table} WHERE run_id = :model"
    connection.execute(statement, {"run_id": run_id, "model": model})
