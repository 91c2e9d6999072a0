"""Opening: pragmas that promises rest on, and files that are refused with a sentence, not a traceback."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from mosaicd.protocol.errors import Unavailable
from mosaicd.store.database import DamagedRegistry, open_reader, open_writer
from mosaicd.store.migrations import APPLICATION_ID, VERSION
from mosaicd.store.registry import Registry
from tests.store.building import new_run, submission


def test_the_pragmas_hold(path: Path) -> None:
    """An answer means fsync: WAL with synchronous=FULL; and constraints are on."""
    connection = open_writer(path)
    names = (
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "ignore_check_constraints",
        "application_id",
        "user_version",
    )
    found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    connection.close()
    assert found == {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "ignore_check_constraints": 0,
        "application_id": APPLICATION_ID, "user_version": VERSION,
    }  # fmt: skip


def test_nobody_else_may_read_it(path: Path) -> None:
    """The file and its WAL are the daemon's own, whatever the umask was."""
    before = os.umask(0)
    try:
        connection = open_writer(path)
    finally:
        os.umask(before)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    connection.execute("COMMIT")
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    connection.close()
    assert set(found.values()) == {0o600}
    assert f"{path.name}-wal" in found


def test_a_reader_cannot_write(path: Path) -> None:
    """Readers are refused any change by SQLite itself."""
    open_writer(path).close()
    reader = open_reader(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM runs")
    reader.close()


def test_a_path_is_taken_literally(tmp_path: Path) -> None:
    """A state directory may hold any characters."""
    path = tmp_path / "a dir?mode=rw#%41" / "registry.sqlite3"
    open_writer(path).close()
    open_reader(path).close()
    assert path.exists()


async def filled(path: Path) -> None:
    registry = await Registry.open(path)
    for _ in range(50):
        await registry.record((await registry.add(submission(new_run()), dedup="new"))[0].run_id)  # type: ignore[arg-type]
    await registry.close()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("damage", ["header", "page", "cut", "text"])
async def test_a_damaged_file_is_refused_with_advice(path: Path, damage: str) -> None:
    """Damage is found at start, said in a sentence that names the file, and the file is left as it is."""
    await filled(path)
    if damage == "header":
        overwrite(path, 0, b"SQLite format 9\0")
    elif damage == "page":
        overwrite(path, 4096 * 3, os.urandom(4096))
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_text("this is a letter to my aunt\n" * 100)
    before = path.read_bytes()
    with pytest.raises(DamagedRegistry) as caught:
        await Registry.open(path)
    assert str(path) in str(caught.value)
    assert "move it aside" in str(caught.value).lower()
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_untouched(path: Path) -> None:
    """A file that is SQLite but not a registry is not turned into one."""
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(DamagedRegistry, match="not a registry"):
        open_writer(path)
    assert path.read_bytes() == before


def test_a_directory_in_the_way_is_said(path: Path) -> None:
    """What cannot be opened at all is an OSError with the path, not a database error."""
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"registry\.sqlite3"):
        open_writer(path)


def test_a_locked_file_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that another process holds exclusively is not called damaged."""
    open_writer(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO meta VALUES ('a', 'b')")
    monkeypatch.setattr("mosaicd.store.database.BUSY_TIMEOUT_MS", 1)
    with pytest.raises(Unavailable, match="locked by another process"):
        open_writer(path)
    holder.close()
