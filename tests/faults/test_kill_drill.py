"""The kill drill, short and long; tests/faults/drill.py says what is compared.

MOSAIC_DRILL_KILLS sets the number of kills of the long drill, MOSAIC_DRILL_SEED the seed, to replay a failed
drill: `make drill KILLS=10000`, `make drill SEED=7`.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.containment.groups import run_cgroups_of
from tests.harness import processes
from tests.harness.places import ROOT
from tests.harness.waiting import wait_until

SHORT, LONG = 40, 1000
#: Number of parallel drills: each keeps about half a core busy.
PARALLEL = 4
#: Time limit of a drill on a slow machine: a base, plus a time for each kill. The Makefile allows more.
BASE_S, KILL_S = 200.0, 0.9
CLEANUP_S = 60.0


def seed() -> int:
    chosen = os.environ.get("MOSAIC_DRILL_SEED")
    return int(chosen) if chosen else int.from_bytes(os.urandom(3), "big")


def drill(kills: int, first_seed: int, count: int, directory: Path) -> dict[str, Any]:
    """Run `count` parallel drills, `kills` kills in total; return the figures, or fail with what broke."""
    command = [sys.executable, "-m", "tests.faults.drill", "--kills", str(-(-kills // count))]
    outputs = [directory / f"drill-{first_seed + number}" for number in range(count)]
    processes = []
    for number, path in enumerate(outputs):
        with open(path, "wb") as file:
            seeded = [*command, "--seed", str(first_seed + number)]
            processes.append(subprocess.Popen(seeded, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + BASE_S + KILL_S * kills
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # the exit code of this drill stays None
    finally:
        codes = [process.poll() for process in processes]
        end(processes)
    texts = [path.read_text() for path in outputs]
    broken = [f"exit code {code}\n{text}" for text, code in zip(texts, codes, strict=True) if code != 0]
    assert not broken, "\n".join(broken)
    return summed([json.loads(text.splitlines()[-1]) for text in texts])


def end(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Terminate the drills that still run, and kill them if their cleanup takes too long."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(CLEANUP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def summed(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the figures of several drills, including the counters inside them."""
    total: dict[str, Any] = {}
    for drilled in figures:
        for name, value in drilled.items():
            if isinstance(value, dict):
                total[name] = dict(Counter(total.get(name, {})) + Counter(value))
            elif name in ("seed", "seconds"):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    return total


@pytest.mark.timeout(0)
def test_forty_random_kills_break_no_guarantee(tmp_path: Path) -> None:
    """After random kills of daemon, launcher and shims, each acknowledged change exists once and is exact."""
    drill(SHORT, seed(), 2, tmp_path)


def test_interrupted_drill_leaves_no_process_and_no_file() -> None:
    """A drill that gets SIGTERM leaves no process of its daemons and runs, no control group and no file."""
    command = [sys.executable, "-m", "tests.faults.drill", "--kills", "100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        home, runs = wait_until(
            lambda: home_of(process.pid), lambda place: bool(place[1]), "a run has started"
        )
        process.terminate()
        output = process.communicate(timeout=CLEANUP_S)[0].decode()
    finally:
        end([process])
        process.stdout.close()
    assert (process.returncode, output.splitlines()[-1]) == (130, "interrupted; everything is removed")
    assert not home.exists()
    assert [path for run_id in runs for path in run_cgroups_of(run_id)] == []
    wait_until(lambda: processes.pids_with_path(home), lambda pids: not pids, "no process is left")


def home_of(pid: int) -> tuple[Path, list[str]]:
    """Return the directory of a drill and its run ids, once one of its runs has started."""
    daemons = [child for zygote in processes.children(pid) for child in processes.children(zygote)]
    for daemon in daemons:
        with contextlib.suppress(OSError):  # the daemon ends or a run is pruned meanwhile
            home = Path(os.readlink(f"/proc/{daemon}/cwd"))
            seen = Path(f"/proc/{daemon}/root{home}/state/runs")  # only the daemon may see the mount
            if home.name.startswith("mosaic-drill-") and list(seen.glob("*/attempt-*/started.json")):
                return home, [path.name for path in seen.iterdir()]
    return Path(), []


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_thousand_random_kills_break_no_guarantee(tmp_path: Path) -> None:
    """After 1,000 random kills (or MOSAIC_DRILL_KILLS), each acknowledged change exists once and is exact."""
    kills = int(os.environ.get("MOSAIC_DRILL_KILLS") or LONG)
    first = seed()
    figures = drill(kills, first, PARALLEL, tmp_path)
    print(f"seeds {first}..{first + PARALLEL - 1}: {json.dumps(figures)}")
    assert figures["kills"] >= kills
