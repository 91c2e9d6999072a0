"""Fixtures: a harness with a running daemon, and a teardown that looks for trouble nobody asserted on."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import DaemonHarness

_SHOWN = 4000  # characters of a daemon's log


@pytest.fixture
def build() -> Iterator[Callable[..., DaemonHarness]]:
    """Make harnesses with settings of their own; each is searched for trouble at the end."""
    harnesses: list[DaemonHarness] = []

    def make(start: bool = True, **settings: dict[str, Any]) -> DaemonHarness:
        harness = DaemonHarness(Path(tempfile.mkdtemp(prefix="mosaic-")), settings)
        harnesses.append(harness)
        if start:
            harness.start()
        return harness

    yield make
    trouble = []
    for harness in harnesses:
        found = harness.close()
        trouble += found
        if found and harness.log.exists():
            trouble.append(harness.log.read_text(errors="replace")[-_SHOWN:])
        shutil.rmtree(harness.home, ignore_errors=True)  # also after trouble: what can be said is said here
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def harness(build: Callable[..., DaemonHarness]) -> DaemonHarness:
    """A harness with a running daemon."""
    return build()
