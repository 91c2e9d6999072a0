"""Fixtures: a harness with a running daemon. At the end of each test the harness checks for leaks."""

from collections.abc import Iterator

import pytest

from tests.harness.building import Build, builder
from tests.harness.daemon import DaemonHarness


@pytest.fixture
def build() -> Iterator[Build]:
    """Make harnesses, each with its own settings; at the end each is checked for leaks."""
    with builder(DaemonHarness) as make:
        yield make


@pytest.fixture
def harness(build: Build) -> DaemonHarness:
    """Return a harness with a running daemon."""
    return build()
