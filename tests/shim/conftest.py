"""Fixture: a shim harness for each test, with a check for leaked processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.shim import ShimHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ShimHarness]:
    """Yield a launcher and a peer; the test fails if a process of its runs remains."""
    harness = ShimHarness(tmp_path)
    try:
        yield harness
    finally:
        harness.close()
