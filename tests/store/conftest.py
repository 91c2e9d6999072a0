"""Real registries in real files; after each test no thread is left and the ledger still explains the rows."""

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
    """Where the registry of this test lies."""
    return tmp_path / "registry.sqlite3"


@pytest.fixture
async def registry(path: Path) -> AsyncIterator[Registry]:
    """An open registry, and at the end: every live run's events lead to its row."""
    opened = await Registry.open(path)
    yield opened
    live = dict(opened.live)
    await opened.close()
    for run_id, run in live.items():
        assert replay(ledger(path, run_id)) == run == read_run(row(path, run_id))


@pytest.fixture
async def history(path: Path, registry: Registry) -> AsyncIterator[History]:
    """Reads of the same file."""
    opened = History(path, on_bad=registry.quarantine_ended)
    yield opened
    await opened.close()


@pytest.fixture
def may_warn() -> None:
    """Asked for by tests that are about warnings."""


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread of ours lives on, and nothing was logged as a warning unless the test is about that."""
    before = set(threading.enumerate())
    yield
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith(("registry", "history"))]
    assert not left
    if "may_warn" not in request.fixturenames:
        said = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
        assert not said
