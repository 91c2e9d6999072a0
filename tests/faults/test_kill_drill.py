"""The kill drill, short and long: see tests/faults/drill.py for what is compared.

MOSAIC_DRILL_KILLS and MOSAIC_DRILL_SEED choose another length and replay a failed one:
`make drill KILLS=10000`, `make drill SEED=7`.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT, LONG = 40, 1000
#: Drills side by side: each keeps about half a core busy.
SIDE_BY_SIDE = 4


def seed() -> int:
    chosen = os.environ.get("MOSAIC_DRILL_SEED")
    return int(chosen) if chosen else int.from_bytes(os.urandom(3), "big")


def drill(kills: int, first_seed: int, count: int, deadline_s: float) -> None:
    """Run `count` drills at once, `kills` together; print the figures, fail with what was broken."""
    command = [sys.executable, "-m", "tests.faults.drill", "--kills", str(-(-kills // count))]
    processes = [
        subprocess.Popen(
            [*command, "--seed", str(first_seed + number)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        told = [(process.communicate(timeout=deadline_s)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    broken = [text for text, code in told if code != 0]
    assert not broken, "\n".join(broken)
    figures: Counter[str] = Counter()
    for text, _ in told:
        one = json.loads(text.splitlines()[1])
        figures.update({name: value for name, value in one.items() if isinstance(value, int)})
    del figures["seed"]
    print(f"seeds {first_seed}..{first_seed + count - 1}: {dict(figures)}")
    assert figures["kills"] >= kills


def test_forty_kills() -> None:
    """Whatever is killed whenever: what was acknowledged is there, once, and exact."""
    drill(SHORT, seed(), 2, 90)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_thousand_kills() -> None:
    """The same, a thousand times and more (MOSAIC_DRILL_KILLS)."""
    kills = int(os.environ.get("MOSAIC_DRILL_KILLS") or LONG)
    drill(kills, seed(), SIDE_BY_SIDE, 60 + 2.0 * kills)
