"""Time until a command starts: from its submit, and from the end of the previous run.

Both times are wall-clock stamps: one before the request is sent, one by the first instructions of the command
(`date`). So the time includes exec and the start of the program, as in the plain way.
"""

import os
import time
from itertools import pairwise

from benchmarks import plain
from benchmarks.harness import ended, private_daemon, submit
from benchmarks.rows import Row, Target, percentiles

TARGET = Target(15.0)


def submit_to_start(is_quick: bool) -> list[Row]:
    """Measure submit -> first instruction on an idle daemon, over an open connection."""
    ours, beside, answered = [], [], []
    with private_daemon(slots=2) as harness, harness.client() as client:
        ended(client, submit(client, harness, *plain.STAMP))
        for _ in range(5 if is_quick else 100):
            time.sleep(plain.SETTLE_S)
            began = time.time()
            beside.append(plain.stamp() - began)
            time.sleep(plain.SETTLE_S)
            began = time.time()
            run_id = submit(client, harness, *plain.STAMP)
            answered.append(time.time() - began)
            ended(client, run_id)
            ours.append(float(harness.stdout(run_id)) - began)
    name = "submit-to-start"
    rows = percentiles(name, "submit -> first instruction", ours, beside, "subprocess", TARGET)
    answer_ms = [1000 * s for s in sorted(answered)]
    middle = answer_ms[len(answer_ms) // 2]
    return [*rows, Row(name, "submit -> durable answer, p50", "ms", middle, answer_ms[0], answer_ms[-1])]


def exit_to_start(is_quick: bool) -> list[Row]:
    """Measure the time between the stamps of two successive runs on the only slot."""
    count = 6 if is_quick else 100
    with private_daemon(slots=1) as harness, harness.client() as client:
        gate = harness.home / "gate"
        os.mkfifo(gate)
        blocker = submit(client, harness, "sh", "-c", f"read line < {gate}")
        runs = [submit(client, harness, *plain.STAMP) for _ in range(count)]
        gate.write_text("go\n")
        ended(client, blocker)
        for run_id in runs:
            ended(client, run_id)
        ours = _gaps([float(harness.stdout(run_id)) for run_id in runs])
    beside = _gaps([plain.stamp() for _ in range(count)])
    what = "exit -> the slot's next run"
    return percentiles("exit-to-start", what, ours, beside, "subprocess", TARGET)


def _gaps(stamps: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(stamps)]
