"""Fixtures: real registries in files, with checks for leaked threads, warnings, and rows that differ."""

import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mosaicd.core.fsm import replay
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from mosaicd.store.rows import read_run
from tests.store.building import ledger, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the registry of this test."""
    return tmp_path / "registry.sqlite3"


@pytest.fixture
async def registry(path: Path) -> AsyncIterator[Registry]:
    """Yield an open registry; at the end the events of every live run must give its row."""
    opened = await Registry.open(path)
    yield opened
    live = dict(opened.live)
    await opened.close()
    for run_id, run in live.items():
        assert replay(ledger(path, run_id)) == run == read_run(row(path, run_id))


@pytest.fixture
async def history(path: Path, registry: Registry) -> AsyncIterator[History]:
    """Yield the history of the same registry."""
    opened = History(path, on_bad=registry.quarantine_ended)
    yield opened
    await opened.close()


@pytest.fixture
def may_warn() -> None:
    """Allow warnings in the log of this test."""


@pytest.fixture(autouse=True)
def no_thread_or_warning_remains(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Check that no thread of the store lives after the test, and that no unexpected warning was logged."""
    before = set(threading.enumerate())
    yield
    remaining = [
        t.name for t in set(threading.enumerate()) - before if t.name.startswith(("registry", "history"))
    ]
    assert not remaining
    if "may_warn" not in request.fixturenames:
        warnings = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
        assert not warnings
