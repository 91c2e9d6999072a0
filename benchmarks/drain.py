"""Throughput of a run's output: plain lines to the log, telemetry lines to numbered records.

The time begins with the stamp that the run prints before `cat`, and ends with `finished_at` of its exit
record, when all output is in the files.
"""

import json
from pathlib import Path

from benchmarks import plain
from benchmarks.harness import Failed, ended, private_daemon, record, submit
from benchmarks.rows import Row, Target, of_rounds
from mosaicctl.client import Client
from mosaicd.protocol import rundir
from tests.harness.daemon import DaemonHarness

LOG_TARGET = Target(0.5, at_least=True, of_ratio=True)
LINES_TARGET = Target(20_000.0, at_least=True)
SCRIPT = 'date +%s.%N >&2; exec cat "$0"'
LINE = b"epoch 00017 batch 00342 loss 0.318250 entropy 1.337 lr 0.00025 fps 10423 eta 00:12:51\n"


def log_drain(is_quick: bool) -> list[Row]:
    """Measure MB/s of plain lines, compared with `cat | cat > file` of the same bytes."""
    size_bytes, rounds = (4 << 20, 1) if is_quick else (192 << 20, 3)
    ours, beside = [], []
    with private_daemon(slots=2) as harness, harness.client() as client:
        source = harness.home / "lines"
        _fill(source, LINE, size_bytes)
        size_bytes = source.stat().st_size
        for _ in range(rounds):
            beside.append(size_bytes / 1e6 / plain.cat_s(source, harness.home / "copy"))
            run_id, took = _cat_run(harness, client, source)
            ours.append(size_bytes / 1e6 / took)
            log = harness.attempt(run_id) / rundir.STDOUT
            if log.stat().st_size != size_bytes:
                raise Failed(f"the log has {log.stat().st_size} of {size_bytes} bytes")
            log.unlink()
    note = f"{rounds} x {size_bytes / 1e6:.0f} MB"
    return [of_rounds("drain", "log drain", "MB/s", ours, beside, "cat | cat", LOG_TARGET, note)]


def telemetry(is_quick: bool) -> list[Row]:
    """Measure telemetry lines per second; each is numbered and unchanged."""
    count, rounds = (2_000, 1) if is_quick else (100_000, 3)
    ours, beside = [], []
    with private_daemon(slots=2) as harness, harness.client() as client:
        source = harness.home / "steps"
        with open(source, "w") as file:
            file.writelines(_step(n) for n in range(count))
        for _ in range(rounds):
            beside.append(count / plain.cat_s(source, harness.home / "copy"))
            run_id, took = _cat_run(harness, client, source)
            _check(harness, run_id, count)
            ours.append(count / took)
    note = f"{rounds} x {count} step lines, none lost"
    return [of_rounds("telemetry", "telemetry lines", "/s", ours, beside, "cat | cat", LINES_TARGET, note)]


def _fill(path: Path, line: bytes, size_bytes: int) -> None:
    block = line * max(1, (1 << 20) // len(line))
    with open(path, "wb") as file:
        for _ in range(max(1, size_bytes // len(block))):
            file.write(block)


def _step(n: int) -> str:
    step = {
        "event": "step", "run_id": "bench", "episode": n // 200, "step": n, "reward": -1.0,
        "terminated": False, "observation": n % 500, "action": n % 6,
    }  # fmt: skip
    return json.dumps(step) + "\n"


def _cat_run(harness: DaemonHarness, client: Client, source: Path) -> tuple[str, float]:
    """Run `cat`; return the run id and the seconds until all output is in the files."""
    run_id = submit(client, harness, "sh", "-c", SCRIPT, str(source))
    ended(client, run_id)
    began = float((harness.attempt(run_id) / rundir.STDERR).read_bytes())
    return run_id, float(record(harness, run_id, rundir.EXIT)["finished_at"]) - began


def _check(harness: DaemonHarness, run_id: str, count: int) -> None:
    """Raise Failed unless all telemetry lines are recorded in order."""
    seqs, steps = [], []
    with open(harness.attempt(run_id) / rundir.TELEMETRY, "rb") as file:
        for line in file:
            record = json.loads(line)
            seqs.append(record["seq"])
            steps.append(record["data"]["step"])
    if seqs != list(range(1, count + 1)) or steps != list(range(count)):
        raise Failed(f"telemetry was lost or disordered: {len(seqs)} records of {count} lines")
