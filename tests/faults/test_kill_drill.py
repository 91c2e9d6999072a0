"""The kill drill, short and long: see tests/faults/drill.py for what is compared.

MOSAIC_DRILL_KILLS and MOSAIC_DRILL_SEED choose another length and replay a failed one:
`make drill KILLS=10000`, `make drill SEED=7`.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT, LONG = 40, 1000
#: Drills side by side: each keeps about half a core busy.
SIDE_BY_SIDE = 4
#: What a drill may take, on a machine that is slow and shared; less than the Makefile gives the whole set.
LEAST_S, KILL_S = 200.0, 0.9


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
        codes = [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    texts = [path.read_text() for path in told]
    broken = [f"left with {code}\n{text}" for text, code in zip(texts, codes, strict=True) if code != 0]
    assert not broken, "\n".join(broken)
    return summed([json.loads(text.splitlines()[-1]) for text in texts])


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


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_thousand_kills(tmp_path: Path) -> None:
    """The same, a thousand times and more (MOSAIC_DRILL_KILLS)."""
    kills = int(os.environ.get("MOSAIC_DRILL_KILLS") or LONG)
    first = seed()
    figures = drill(kills, first, SIDE_BY_SIDE, tmp_path)
    print(f"seeds {first}..{first + SIDE_BY_SIDE - 1}: {json.dumps(figures)}")
    assert figures["kills"] >= kills
