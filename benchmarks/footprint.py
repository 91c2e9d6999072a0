"""What mosaicd takes from the machine while nothing happens: memory and CPU.

PSS counts a page that n processes share as 1/n for each, so the sum over processes is what they really take;
RSS counts it whole for everyone.
"""

import os
import re
import time
from pathlib import Path

from benchmarks import plain
from benchmarks.harness import DaemonHarness, wait_until
from benchmarks.rows import Row, Target
from mosaicctl.client import Client
from mosaicd.protocol import rundir

DAEMON_TARGET = Target(60.0)
RUN_TARGET = Target(5.0)
MB = 1e6


def daemon(is_quick: bool) -> list[Row]:
    """Measure RSS of daemon and launcher after some work, and the CPU that both take while idle."""
    count, idle_s = (4, 0.5) if is_quick else (200, 10.0)
    with DaemonHarness(slots=4) as harness, harness.client() as client:
        for _ in range(count):
            harness.submit(client, "true")
        harness.all_ended(client)
        pids = (harness.pid, harness.launcher_pid())
        rss = [rss_bytes(pid) / MB for pid in pids]
        before = sum(cpu_s(pid) for pid in pids)
        time.sleep(idle_s)
        share = 100 * (sum(cpu_s(pid) for pid in pids) - before) / idle_s
    with plain.sleeping_python() as sleeper:
        beside = rss_bytes(sleeper) / MB
    return [
        Row("daemon", "daemon RSS", "MB", rss[0], plain=beside, plain_what="python asleep",
            target=DAEMON_TARGET, note=f"after {count} runs; its launcher {rss[1]:.1f} MB"),
        Row("daemon", "idle CPU, daemon and launcher", "% core", share, note=f"over {idle_s:g} s"),
    ]  # fmt: skip


def live_run(is_quick: bool) -> list[Row]:
    """Measure the PSS of a run's shim with 1, 10 and 50 runs alive."""
    rows = []
    with plain.sleeping_python() as sleeper, DaemonHarness(slots=64) as harness, harness.client() as client:
        runs: list[str] = []
        for wanted in (1, 4) if is_quick else (1, 10, 50):
            runs += [harness.submit(client, "sleep", "3600") for _ in range(wanted - len(runs))]
            _wait_executing(client, wanted)
            shims = [int(harness.record(run_id, rundir.LAUNCH)["shim_pid"]) for run_id in runs]
            each = [pss_bytes(pid) / MB for pid in shims]
            mean = sum(each) / len(each)
            rows.append(
                Row("live-run", f"PSS of a live run's shim, {wanted} alive", "MB", mean, min(each), max(each),
                    pss_bytes(sleeper) / MB, "python asleep", RUN_TARGET)
            )  # fmt: skip
    return rows


def _wait_executing(client: Client, wanted: int) -> None:
    def is_so() -> bool:
        return [run["state"] for run in client.call("run.list", {"live": True})["runs"]] == ["EXEC"] * wanted

    wait_until(is_so, f"{wanted} runs execute")


def rss_bytes(pid: int) -> int:
    """Return the resident set of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    size: int = os.sysconf("SC_PAGE_SIZE")
    return pages * size


def pss_bytes(pid: int) -> int:
    """Return the proportional set of a process."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, to the nanosecond, of all threads of a process."""
    spent_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent_ns += int((task / "schedstat").read_text().split()[0])
    return spent_ns / 1e9
