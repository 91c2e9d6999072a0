"""One house a test, closed and searched for leftovers afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shim.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A launcher and a peer; the test fails if a process of its runs outlives it."""
    house = House(tmp_path)
    try:
        yield house
    finally:
        house.close()
