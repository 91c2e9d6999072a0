"""Migrations: old files can always be loaded, newer files are refused, and a failed step changes nothing."""

import ast
import shutil
import sqlite3
from pathlib import Path

import pytest

import mosaicd.store
from mosaicd.core.fsm import Kind, replay
from mosaicd.store.database import open_writer
from mosaicd.store.history import History
from mosaicd.store.migrations import VERSION, NewerRegistry, migrate
from mosaicd.store.registry import Registry
from mosaicd.store.statements import SCHEMA, split
from tests.store.building import event, ledger

FROZEN = sorted(Path(__file__).parent.glob("frozen/v*.sqlite3"))


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def structure(connection: sqlite3.Connection) -> set[str]:
    statements = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    )
    return {" ".join(sql.split()) for (sql,) in statements}


def test_there_is_a_frozen_file_of_every_version() -> None:
    """A change of VERSION needs a frozen file of the version before."""
    assert [path.stem for path in FROZEN] == [f"v{number}" for number in range(1, VERSION + 1)]


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
async def test_a_frozen_registry_loads_for_ever(frozen: Path, path: Path) -> None:
    """Its runs, ledger, slots and last values are read and replayed, and its live runs continue."""
    shutil.copy(frozen, path)
    registry = await Registry.open(path)
    history = History(path)
    assert registry.quarantine == []
    places = {run.name: (run.state, run.released) for run in registry.live.values()}
    assert places == {
        "waits": ("INIT", False), "shakes": ("HSHK", False), "ready": ("RDY", False),
        "works": ("EXEC", False), "frozen": ("PAUSE", False), "left": ("PAUSE", True),
        "broken": ("FAULT", False), "again": ("INIT", False),
    }  # fmt: skip
    for run_id, run in registry.live.items():
        assert replay(ledger(path, run_id)) == run
    works = next(run for run in registry.live.values() if run.name == "works")
    assert (works.slots, works.labels, registry.progress[works.run_id].steps) == (
        (0, 3),
        {"sweep": "ä"},
        1200,
    )
    page, _ = await history.list()
    ends = {run.name: (run.outcome, (run.cause or {}).get("kind")) for run, _ in page if run.is_final}
    assert ends == {
        "done": ("succeeded", None), "seven": ("failed", "exit_code"),
        "stopped": ("cancelled", "by_user"), "late": ("timeout", "time_limit"),
        "lost": ("interrupted", "shim_lost"), "never": ("cancelled", "by_user"),
    }  # fmt: skip
    assert (await registry.record(works.run_id, event(Kind.PAUSE_REQUESTED))).want == "pause"
    await history.close()
    await registry.close()


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_a_migrated_file_has_the_schema_of_a_new_one(frozen: Path, path: Path, tmp_path: Path) -> None:
    """schema.sql and the migration steps give the same schema."""
    shutil.copy(frozen, path)
    old, new = open_writer(path), open_writer(tmp_path / "new.sqlite3")
    assert structure(old) == structure(new)
    assert version_of(old) == version_of(new) == VERSION
    old.close()
    new.close()


def test_a_newer_registry_is_refused_and_unchanged(path: Path) -> None:
    """The error of an older mosaicd has the version of the file and advice; nothing is written."""
    connection = open_writer(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerRegistry) as caught:
        open_writer(path)
    assert f"version {VERSION + 1}" in str(caught.value)
    assert "install" in str(caught.value)
    assert path.read_bytes() == before


#: Two versions after the present one.
NEXT, LAST = VERSION + 1, VERSION + 2
STEPS = {
    NEXT: "CREATE TABLE two (a TEXT) STRICT;",
    LAST: "ALTER TABLE two ADD COLUMN b TEXT;\nINSERT INTO two VALUES ('x', 'y');",
}


def test_migration_steps_are_applied_in_order(path: Path) -> None:
    """A file that is two versions old gets both steps, and a second start applies none."""
    connection = open_writer(path)
    assert migrate(connection, "x", version=LAST, steps=STEPS) == VERSION
    assert version_of(connection) == LAST
    assert connection.execute("SELECT * FROM two").fetchall() == [("x", "y")]
    assert migrate(connection, "x", version=LAST, steps=STEPS) == LAST
    connection.close()


def test_a_failed_migration_step_changes_nothing(path: Path) -> None:
    """If a step fails in its middle, the file has the version of the last complete step."""
    connection = open_writer(path)
    failing_step = "INSERT INTO two VALUES ('x');\nCREATE TABLE three (a TEXT);\nSELECT nonsense;"
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        migrate(connection, "x", version=LAST, steps={**STEPS, LAST: failing_step})
    assert version_of(connection) == NEXT
    assert connection.execute("SELECT count(*) FROM two").fetchone()[0] == 0
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        connection.execute("SELECT * FROM three")
    migrate(connection, "x", version=LAST, steps=STEPS)
    assert version_of(connection) == LAST
    connection.close()


def test_the_store_never_calls_executescript() -> None:
    """executescript would commit an open transaction."""
    for source in Path(mosaicd.store.__path__[0]).rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.Attribute)]
        assert "executescript" not in {call.attr for call in calls}, source


def test_split_keeps_triggers_complete() -> None:
    """The statements of a trigger stay together; comments and strings do not change the split."""
    assert len(list(split(SCHEMA))) == SCHEMA.count("\nCREATE ")
    assert list(split("-- a;\nSELECT ';';\n\nSELECT 2;\n")) == ["SELECT ';';", "SELECT 2;"]
    with pytest.raises(ValueError, match="unfinished"):
        list(split("SELECT 1"))
