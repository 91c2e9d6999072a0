"""The writer truncates the WAL, and warns if a reader prevents it."""

import logging
import sqlite3
from pathlib import Path

import pytest

from mosaicd.log import Catalogue, Entry
from mosaicd.protocol.states import Dedup
from mosaicd.store import checkpoints
from mosaicd.store.commit_mark import SUFFIX
from mosaicd.store.database import open_reader
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from tests.harness.trouble import entries
from tests.store.building import new_run, submission


async def fill(registry: Registry, runs: int = 20) -> None:
    for _ in range(runs):
        await registry.add(submission(new_run()), dedup=Dedup.NEW)


def wal_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def test_a_checkpoint_truncates_the_wal(registry: Registry, path: Path) -> None:
    """After a checkpoint the WAL is empty and the database is complete."""
    await fill(registry)
    assert wal_bytes(path) > 0
    assert await registry.checkpoint() == (0, 0, 0)
    assert wal_bytes(path) == 0
    await fill(registry, 1)


@pytest.mark.usefixtures("may_warn")
async def test_three_busy_checkpoints_cause_a_warning(
    registry: Registry, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An old snapshot prevents the truncation; writers continue, and the third checkpoint in a row warns."""
    await fill(registry, 1)
    reader = open_reader(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM runs").fetchone()
    for round_number in range(1, 5):
        await fill(registry)
        busy, log, checkpointed = await registry.checkpoint()
        assert busy == 1
        assert log > checkpointed >= 0
        assert len(warnings(caplog)) == max(0, round_number - 2)
    assert set(warnings(caplog)) == {Catalogue.WAL_BUSY}
    assert (
        reader.execute("SELECT count(*) FROM runs").fetchone()[0] == 1
    )  # the reader still has its old snapshot
    reader.execute("COMMIT")
    reader.close()
    assert (await registry.checkpoint())[0] == 0
    await fill(registry)
    assert (await registry.checkpoint())[0] == 0
    assert len(warnings(caplog)) == 2


@pytest.mark.usefixtures("may_warn")
@pytest.mark.parametrize("is_large", [False, True])
async def test_short_readers_cause_no_warning(
    registry: Registry, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    is_large: bool,
) -> None:  # fmt: skip
    """Different readers at each checkpoint cause no warning as long as the WAL moves on; a large WAL does."""
    monkeypatch.setattr(checkpoints, "MANY_PAGES", 5 if is_large else 2048)
    before = None
    for _ in range(6):
        await fill(registry, 2)
        reader = open_reader(path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        if before is not None:
            before.close()
        await fill(registry, 2)
        busy, log, checkpointed = await registry.checkpoint()
        assert busy == 1 and log > checkpointed
        before = reader
    reader.close()
    assert len(warnings(caplog)) == (4 if is_large else 0)
    if is_large:
        return
    for _ in range(6):  # no more writes from here on
        reader = open_reader(path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        await registry.checkpoint()
        reader.close()
    assert not warnings(caplog)


async def test_history_never_holds_a_snapshot(registry: Registry, history: History) -> None:
    """Reads between checkpoints do not make one busy, because they hold no snapshot."""
    for _ in range(4):
        await fill(registry)
        await history.list()
        await history.events(0, 5)
        await history.counts()
        assert (await registry.checkpoint())[0] == 0


async def test_a_closed_registry_has_no_wal(path: Path) -> None:
    """A clean close leaves no WAL, so the file can be copied."""
    registry = await Registry.open(path)
    history = History(path)
    await fill(registry)
    await history.counts()
    await history.close()
    await registry.close()
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + SUFFIX}
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 20
    connection.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[Entry | None]:
    return entries(record for record in caplog.records if record.levelno == logging.WARNING)
