"""One harness a test, closed and searched for leftovers afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.shim import ShimHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ShimHarness]:
    """A launcher and a peer; the test fails if a process of its runs outlives it."""
    harness = ShimHarness(tmp_path)
    try:
        yield harness
    finally:
        harness.close()
