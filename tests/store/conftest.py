"""Real registries in real files; after each test no thread lives and the ledger gives the rows."""

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
    """The path of the registry of this test."""
    return tmp_path / "registry.sqlite3"


@pytest.fixture
async def registry(path: Path) -> AsyncIterator[Registry]:
    """An open registry; at the end the events of every live run must give its row."""
    opened = await Registry.open(path)
    yield opened
    live = dict(opened.live)
    await opened.close()
    for run_id, run in live.items():
        assert replay(ledger(path, run_id)) == run == read_run(row(path, run_id))


@pytest.fixture
async def history(path: Path, registry: Registry) -> AsyncIterator[History]:
    """Reads of the same registry."""
    opened = History(path, on_bad=registry.quarantine_ended)
    yield opened
    await opened.close()


@pytest.fixture
def may_warn() -> None:
    """For tests that expect warnings."""


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread of the store lives after the test, and no warning was logged unexpectedly."""
    before = set(threading.enumerate())
    yield
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith(("registry", "history"))]
    assert not left
    if "may_warn" not in request.fixturenames:
        said = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
        assert not said
