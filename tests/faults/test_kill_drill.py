"""The kill drill, short and long: see tests/faults/drill.py for what is compared.

MOSAIC_DRILL_KILLS and MOSAIC_DRILL_SEED choose another length and replay a failed one:
`make drill KILLS=10000`, `make drill SEED=7`.
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
#: Drills side by side: each keeps about half a core busy.
SIDE_BY_SIDE = 4
#: What a drill may take, on a machine that is slow and shared; less than the Makefile gives the whole set.
LEAST_S, KILL_S = 200.0, 0.9
CLEAR_UP_S = 60.0


def seed() -> int:
    chosen = os.environ.get("MOSAIC_DRILL_SEED")
    return int(chosen) if chosen else int.from_bytes(os.urandom(3), "big")


def drill(kills: int, first_seed: int, count: int, directory: Path) -> dict[str, Any]:
    """Run `count` drills at once, `kills` together; return the figures, fail with what was broken."""
    command = [sys.executable, "-m", "tests.faults.drill", "--kills", str(-(-kills // count))]
    told = [directory / f"drill-{first_seed + number}" for number in range(count)]
    processes = []
    for number, path in enumerate(told):
        with open(path, "wb") as file:
            seeded = [*command, "--seed", str(first_seed + number)]
            processes.append(subprocess.Popen(seeded, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + LEAST_S + KILL_S * kills
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # its code is None below
    finally:
        codes = [process.poll() for process in processes]
        end(processes)
    texts = [path.read_text() for path in told]
    broken = [f"left with {code}\n{text}" for text, code in zip(texts, codes, strict=True) if code != 0]
    assert not broken, "\n".join(broken)
    return summed([json.loads(text.splitlines()[-1]) for text in texts])


def end(processes: list["subprocess.Popen[bytes]"]) -> None:
    """End drills that have not ended, and give them time to clear up."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(CLEAR_UP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def summed(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Add the figures of several drills, those by name too."""
    total: dict[str, Any] = {}
    for one in figures:
        for name, value in one.items():
            if isinstance(value, dict):
                total[name] = dict(Counter(total.get(name, {})) + Counter(value))
            elif name in ("seed", "seconds"):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    return total


@pytest.mark.timeout(0)
def test_forty_kills(tmp_path: Path) -> None:
    """Whatever is killed whenever: what was acknowledged is there, once, and exact."""
    drill(SHORT, seed(), 2, tmp_path)


def test_a_drill_that_is_ended_leaves_nothing() -> None:
    """Ended in the middle of its work: no process of its daemons and runs is left, and no file."""
    command = [sys.executable, "-m", "tests.faults.drill", "--kills", "100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        home, runs = wait_until(lambda: home_of(process.pid), lambda found: bool(found[1]), "a run works")
        process.terminate()
        told = process.communicate(timeout=CLEAR_UP_S)[0].decode()
    finally:
        end([process])
        process.stdout.close()
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted; nothing is left")
    assert not home.exists()
    assert [path for run_id in runs for path in run_cgroups_of(run_id)] == []
    wait_until(lambda: processes.naming(home), lambda left: not left, "no process is left")


def home_of(pid: int) -> tuple[Path, list[str]]:
    """The home of a drill, and its runs once one of them works."""
    daemons = [one for zygote in processes.children(pid) for one in processes.children(zygote)]
    for daemon in daemons:
        with contextlib.suppress(OSError):  # the daemon, or a run that is pruned, goes meanwhile
            home = Path(os.readlink(f"/proc/{daemon}/cwd"))
            seen = Path(f"/proc/{daemon}/root{home}/state/runs")  # its disk may be mounted for it alone
            if home.name.startswith("mosaic-drill-") and list(seen.glob("*/attempt-*/started.json")):
                return home, [path.name for path in seen.iterdir()]
    return Path(), []


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_thousand_kills(tmp_path: Path) -> None:
    """The same, a thousand times and more (MOSAIC_DRILL_KILLS)."""
    kills = int(os.environ.get("MOSAIC_DRILL_KILLS") or LONG)
    first = seed()
    figures = drill(kills, first, SIDE_BY_SIDE, tmp_path)
    print(f"seeds {first}..{first + SIDE_BY_SIDE - 1}: {json.dumps(figures)}")
    assert figures["kills"] >= kills
