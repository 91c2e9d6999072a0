"""Memory and CPU of an idle mosaicd.

PSS counts a page that n processes share as 1/n for each process, so the sum over processes is the memory that
they use together; RSS counts the complete page for each process.
"""

import os
import re
import time
from pathlib import Path

from benchmarks import plain
from benchmarks.harness import DEADLINE_S, all_ended, private_daemon, record, submit
from benchmarks.rows import Row, Target
from mosaicctl.client import Client
from mosaicd.protocol import rundir
from tests.harness.waiting import wait_until

DAEMON_TARGET = Target(60.0)
RUN_TARGET = Target(5.0)
MB = 1e6


def daemon(is_quick: bool) -> list[Row]:
    """Measure RSS of daemon and launcher after some work, and the CPU that both take while idle."""
    count, idle_s = (4, 0.5) if is_quick else (200, 10.0)
    with private_daemon(slots=4) as harness, harness.client() as client:
        for _ in range(count):
            submit(client, harness, "true")
        all_ended(client)
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
    with plain.sleeping_python() as sleeper, private_daemon(slots=64) as harness, harness.client() as client:
        runs: list[str] = []
        for wanted in (1, 4) if is_quick else (1, 10, 50):
            runs += [submit(client, harness, "sleep", "3600") for _ in range(wanted - len(runs))]
            _wait_executing(client, wanted)
            shims = [int(record(harness, run_id, rundir.LAUNCH)["shim_pid"]) for run_id in runs]
            each = [pss_bytes(pid) / MB for pid in shims]
            mean = sum(each) / len(each)
            rows.append(
                Row("live-run", f"PSS of a live run's shim, {wanted} alive", "MB", mean, min(each), max(each),
                    pss_bytes(sleeper) / MB, "python asleep", RUN_TARGET)
            )  # fmt: skip
    return rows


def _wait_executing(client: Client, wanted: int) -> None:
    def states() -> list[str]:
        return [run["state"] for run in client.call("run.list", {"live": True})["runs"]]

    wait_until(states, lambda seen: seen == ["EXEC"] * wanted, f"{wanted} runs execute", DEADLINE_S)


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
