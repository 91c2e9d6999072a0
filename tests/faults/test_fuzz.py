"""Thousands of fuzzed frames: each is answered as JSON-RPC requires or skipped; the daemon keeps serving."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rpc.conftest import served
from tests.rpc.test_malformed import check_replies, lines

__all__ = ["served"]

#: Methods that are left out, because the daemon would search for interpreters or wait.
SLOW_METHODS = (b"worker.list", b"run.wait", b"run.submit")
ODD = (b"\x00", b"\xff", b"{", b"[", b'"', b"\\u0000", b"1e999", b"-", b"}]")


def mutated(line: bytes, rng: random.Random) -> bytes:
    """Return `line` with bytes changed, removed, doubled or inserted, and without line feeds."""
    data = bytearray(line)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if data:
                data[at % len(data)] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
            case _:
                data[at:at] = rng.choice(ODD)
    changed = bytes(data).replace(b"\n", b"")
    return b"" if any(word in changed for word in SLOW_METHODS) else changed


def memory_kib() -> int:
    """Return the resident memory of this process, which also runs the server."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def fuzz(served: Any, examples: int, mutations: int) -> int:
    """Send `examples` lists of 30 to 40 frames and `mutations` mutations of each; return the count."""
    count = 0

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(originals=st.lists(lines, min_size=30, max_size=40), seed=st.integers(0, 2**32))
    def send(originals: list[bytes], seed: int) -> None:
        nonlocal count
        rng = random.Random(seed)
        frames = [*originals, *(mutated(line, rng) for line in originals for _ in range(mutations))]
        count += len(frames)
        served.run(check_replies(served.serving, frames))

    send()
    return count


@pytest.mark.parametrize(
    ("examples", "mutations"),
    [(4, 4), pytest.param(180, 20, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["some", "all"],
)
def test_fuzzed_frames_get_known_errors_and_leak_no_memory(
    examples: int, mutations: int, served: Any
) -> None:
    """Valid, malformed and mutated frames get known errors only; the server's memory does not grow."""
    fuzz(served, 2, 2)
    before, began = memory_kib(), time.monotonic()
    count = fuzz(served, examples, mutations)
    grown = memory_kib() - before
    print(f"\n{count} frames in {time.monotonic() - began:.1f} s, memory grown by {grown} KiB")
    assert grown < 192 << 10  # hypothesis stores its own data in this process
    if examples > 100:
        assert count > 100_000
