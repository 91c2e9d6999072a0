"""Opening a registry: its pragmas and permissions, and the refusal of files that cannot be used."""

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


def test_the_pragmas_are_set(path: Path) -> None:
    """A reply means that the data are synced: WAL, synchronous=FULL and constraints are on."""
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


def test_only_the_daemon_may_read_the_file(path: Path) -> None:
    """The file and its WAL have mode 0600, whatever the umask is."""
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
    """SQLite refuses every change over a reader connection."""
    open_writer(path).close()
    reader = open_reader(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM runs")
    reader.close()


def test_any_characters_in_the_path_are_allowed(tmp_path: Path) -> None:
    """The path of the state directory may contain any characters."""
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
    """The start finds the damage and reports it with the path and advice; the file is unchanged."""
    await filled(path)
    if damage == "header":
        overwrite(path, 0, b"SQLite format 9\0")
    elif damage == "page":
        overwrite(path, 4096 * 3, os.urandom(4096))
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_text("this is not a database\n" * 100)
    before = path.read_bytes()
    with pytest.raises(DamagedRegistry) as caught:
        await Registry.open(path)
    assert str(path) in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_unchanged(path: Path) -> None:
    """A SQLite file that is not a registry is refused and unchanged."""
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(DamagedRegistry, match="not a registry"):
        open_writer(path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_opened_is_an_os_error(path: Path) -> None:
    """A path that cannot be opened gives an OSError with the path, not a database error."""
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"registry\.sqlite3"):
        open_writer(path)


def test_a_locked_file_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that another process has locked is not reported as damaged."""
    open_writer(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO meta VALUES ('a', 'b')")
    monkeypatch.setattr("mosaicd.store.database.BUSY_TIMEOUT_MS", 1)
    with pytest.raises(Unavailable) as caught:
        open_writer(path)
    assert (caught.value.data["reason"], "locked" in caught.value.data["detail"]) == ("registry_disk", True)
    holder.close()
