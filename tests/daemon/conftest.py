"""Fixtures: a house with a running daemon, and a teardown that looks for trouble nobody asserted on."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.house import House


@pytest.fixture
def build() -> Iterator[Callable[..., House]]:
    """Make houses with settings of their own; each is searched for trouble at the end."""
    houses: list[House] = []

    def make(start: bool = True, **settings: dict[str, Any]) -> House:
        house = House(Path(tempfile.mkdtemp(prefix="mosaic-")), settings)
        houses.append(house)
        if start:
            house.start()
        return house

    yield make
    trouble = []
    for house in houses:
        trouble += house.close()
    assert not trouble, "\n".join(trouble)
    for house in houses:
        shutil.rmtree(house.home, ignore_errors=True)


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A house with a running daemon."""
    return build()
