"""Fixtures: a harness with a running daemon, searched for trouble when the test has ended."""

from collections.abc import Iterator

import pytest

from tests.harness.building import Build, builder
from tests.harness.daemon import DaemonHarness


@pytest.fixture
def build() -> Iterator[Build]:
    """Make harnesses with settings of their own; each is searched for trouble at the end."""
    with builder(DaemonHarness) as make:
        yield make


@pytest.fixture
def harness(build: Build) -> DaemonHarness:
    """A harness with a running daemon."""
    return build()
