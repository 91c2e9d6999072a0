"""Fixtures: a house with a running daemon, and a teardown that looks for trouble nobody asserted on."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.house import House

_SHOWN = 4000  # characters of a daemon's log


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
        found = house.close()
        trouble += found
        if found and house.log.exists():
            trouble.append(house.log.read_text(errors="replace")[-_SHOWN:])
        shutil.rmtree(house.home, ignore_errors=True)  # also after trouble: what can be said is said here
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A house with a running daemon."""
    return build()
