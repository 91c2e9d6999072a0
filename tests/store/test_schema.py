"""The schema enforces the invariants, also against manual SQL that bypasses the daemon."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.core.fsm import apply, submitted
from mosaicd.store.database import open_writer
from mosaicd.store.pruning import prune
from mosaicd.store.rows import event_values, run_values
from mosaicd.store.statements import QUERIES, SCHEMA
from tests.store.building import new_run, submission, to_exec, to_term

INIT, EXEC, TERM, PINNED, PRUNED = (f"0000000000000000000000000{letter}" for letter in "ABCEF")


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a registry with a run in INIT, one in EXEC with slot 3, and three ended runs (pinned, pruned)."""
    connection = open_writer(path)
    store(connection, INIT, 0)
    store(connection, EXEC, 4)
    connection.execute(QUERIES["take_slot"], (3, EXEC))
    store(connection, TERM, 6)
    store(connection, PINNED, 6)
    connection.execute(QUERIES["pin"], (PINNED, "ada", 1.0))
    store(connection, PRUNED, 6)
    assert prune({PRUNED: 1}, "ada", 1.0, connection)[0] == [PRUNED]
    yield connection
    connection.close()


def store(connection: sqlite3.Connection, run_id: str, steps: int) -> None:
    first = submission(new_run(run_id=run_id, key=run_id))
    run = submitted(first)
    connection.execute(QUERIES["insert_run"], {**run_values(run), "progress": "{}"})
    connection.execute(QUERIES["insert_event"], event_values(run, first))
    for event in [*to_exec(3), *to_term()][:steps]:
        was, run = run.rev, apply(run, event)
        values = {**run_values(run), "was": was, "progress": None}
        assert connection.execute(QUERIES["update_run"], values).rowcount == 1
        connection.execute(QUERIES["insert_event"], event_values(run, event))


COLUMNS = "run_id, name, owner_uid, owner, state, released, want, outcome, cause_kind, rev, digest, key, priority, created_at, finished_at, body, progress"  # noqa: E501
COPY = f"INSERT INTO runs ({COLUMNS}) SELECT {COLUMNS} FROM runs WHERE run_id = '{INIT}'"
EVENT = "INSERT INTO events (run_id, attempt, rev, kind, at, who, data, state, want, outcome) VALUES "
#: A changed row of a live run, with the next revision so that only the rule under test can refuse it.
CHANGE = "UPDATE runs SET rev = rev + 1, {} WHERE run_id = '" + EXEC + "'"
REVIVE = "UPDATE runs SET {} WHERE run_id = '" + TERM + "'"
PRUNE = """INSERT INTO pruned
    SELECT run_id, owner_uid, name, digest, NULL, 'failed', 1.0, 1.0, 1, 1, 'ada', 1.0, 0
    FROM runs WHERE run_id = '{}'"""

REFUSED = [
    # TERM if and only if outcome, and an end
    (CHANGE.format("outcome = 'failed'"), "CHECK"),
    (CHANGE.format("state = 'TERM', finished_at = 1.0"), "CHECK|holds no slots"),
    (CHANGE.format("finished_at = 1.0"), "CHECK"),
    ("UPDATE runs SET rev = 2, state = 'TERM', finished_at = 1.0 WHERE run_id = '" + INIT + "'", "CHECK"),
    ("UPDATE runs SET rev = 2, state = 'TERM', outcome = 'failed' WHERE run_id = '" + INIT + "'", "CHECK"),
    # closed vocabularies
    (CHANGE.format("state = 'RUNNING'"), "CHECK"),
    (CHANGE.format("state = 'exec'"), "CHECK"),
    (CHANGE.format("want = 'go'"), "CHECK"),
    (CHANGE.format("released = 1"), "CHECK|holds no slots"),
    (CHANGE.format("released = 2, state = 'PAUSE'"), "CHECK"),
    ("UPDATE runs SET rev = 2, released = 1 WHERE run_id = '" + INIT + "'", "CHECK"),
    # types and JSON
    (CHANGE.format("body = '{'"), "CHECK"),
    (CHANGE.format("body = '[]'"), "CHECK"),
    (CHANGE.format("body = NULL"), "NOT NULL"),
    (CHANGE.format("priority = 'high'"), "cannot store TEXT"),
    (CHANGE.format("name = x'ff'"), "cannot store BLOB"),
    ("UPDATE runs SET progress = 'null' WHERE run_id = '" + EXEC + "'", "CHECK"),
    # TERM is final
    (REVIVE.format("rev = 99, state = 'EXEC', outcome = NULL, finished_at = NULL"), "TERM does not change"),
    (REVIVE.format("rev = rev + 1, outcome = 'failed'"), "TERM does not change"),
    (REVIVE.format("progress = '{{\"steps\":1}}'"), "TERM does not change"),
    (REVIVE.format("name = name"), "TERM does not change"),
    # the revision only grows, and nothing changes without it
    ("UPDATE runs SET rev = rev WHERE run_id = '" + EXEC + "'", "only grows"),
    ("UPDATE runs SET rev = rev - 1 WHERE run_id = '" + EXEC + "'", "only grows"),
    ("UPDATE runs SET want = 'stop' WHERE run_id = '" + EXEC + "'", "new revision"),
    ("UPDATE runs SET state = 'PAUSE' WHERE run_id = '" + EXEC + "'", "new revision"),
    ("UPDATE runs SET body = '{}' WHERE run_id = '" + EXEC + "'", "new revision"),
    ("UPDATE runs SET priority = 9 WHERE run_id = '" + INIT + "'", "new revision"),
    # identity
    (CHANGE.format("owner_uid = 0"), "never change"),
    (CHANGE.format("run_id = '0000000000000000000000000D'"), "never change"),
    (CHANGE.format("digest = 'x'"), "never change"),
    (CHANGE.format("key = 'x'"), "never change"),
    (CHANGE.format("created_at = 0.0"), "never change"),
    (COPY, "UNIQUE"),
    (COPY.replace("SELECT run_id", "SELECT 'short'"), "CHECK"),
    (COPY.replace("SELECT run_id", "SELECT '0000000000000000000000000D'"), "UNIQUE.*key"),
    # slots
    (f"INSERT INTO slots VALUES (3, '{EXEC}')", "UNIQUE"),
    (f"INSERT INTO slots VALUES (4, '{INIT}')", "holds slots"),
    (f"INSERT INTO slots VALUES (4, '{TERM}')", "holds slots"),
    ("INSERT INTO slots VALUES (4, 'unknown')", "holds slots"),
    (f"INSERT INTO slots VALUES (-1, '{EXEC}')", "CHECK"),
    ("UPDATE slots SET slot = 5", "given back"),
    (CHANGE.format("state = 'INIT'"), "holds no slots"),
    (CHANGE.format("state = 'PAUSE', released = 1"), "holds no slots"),
    (CHANGE.format("state = 'TERM', outcome = 'failed', finished_at = 1.0"), "holds no slots"),
    (f"DELETE FROM runs WHERE run_id = '{EXEC}'", "FOREIGN KEY"),
    # the ledger
    ("UPDATE events SET data = '{}' WHERE seq = 1", "do not change"),
    # pruning
    (PRUNE.format(EXEC), "ended and is not pinned"),
    (PRUNE.format(PINNED), "ended and is not pinned"),
    ("INSERT INTO pins VALUES ('unknown', 'ada', 1.0)", "FOREIGN KEY"),
    (f"DELETE FROM runs WHERE run_id = '{PINNED}'", "FOREIGN KEY"),
    (COPY.replace("SELECT run_id", f"SELECT '{PRUNED}'"), "not used again"),
    (EVENT + f"('{EXEC}', 1, 5, 'set', 1.0, 'ada', '{{}}', 'EXEC', 'run', NULL)", "UNIQUE"),
    (EVENT + f"('{EXEC}', 1, 9, 'set', 1.0, 'ada', 'no', 'EXEC', 'run', NULL)", "CHECK"),
    (EVENT + f"('{EXEC}', 1, 9, 'set', 1.0, 'ada', '{{}}', 'TERM', 'run', NULL)", "CHECK"),
    (EVENT + f"('{EXEC}', 1, 9, 'set', 1.0, 'ada', '{{}}', 'EXEC', 'run', 'failed')", "CHECK"),
    (EVENT + "('unknown', 1, 9, 'set', 1.0, 'ada', '{}', 'EXEC', 'run', NULL)", "FOREIGN KEY"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "why"), REFUSED, ids=lambda value: value[:60])
def test_the_schema_refuses(db: sqlite3.Connection, sql: str, why: str) -> None:
    """The statement is refused, and the registry is unchanged."""
    before = dump(db)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        db.execute(sql)
    assert re.search(why, str(caught.value))
    assert dump(db) == before


ALLOWED = [
    CHANGE.format("want = 'stop'"),
    CHANGE.format("state = 'PAUSE'"),
    CHANGE.format("state = 'FAULT', cause_kind = 'whatever'"),
    "UPDATE runs SET progress = '{\"steps\":1}' WHERE run_id = '" + EXEC + "'",
    f"INSERT INTO slots VALUES (4, '{EXEC}')",
    "DELETE FROM slots WHERE slot = 3",
    EVENT + f"('{EXEC}', 1, 9, 'set', 1.0, 'ada', '{{}}', 'EXEC', 'run', NULL)",
]


@pytest.mark.parametrize("sql", ALLOWED, ids=lambda value: value[:60])
def test_the_schema_allows(db: sqlite3.Connection, sql: str) -> None:
    """The rules refuse only invalid changes."""
    assert db.execute(sql).rowcount == 1


@pytest.mark.parametrize("table", ["events", "runs"])
def test_a_number_is_never_used_again(db: sqlite3.Connection, table: str) -> None:
    """seq and the order of submission only grow, also after rows were deleted."""
    db.execute("DELETE FROM slots")
    db.execute("DELETE FROM pins")
    column = {"events": "seq", "runs": "n"}[table]
    highest = db.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]
    db.execute("DELETE FROM events")
    db.execute("DELETE FROM runs")
    store(db, INIT, 0)
    assert db.execute(f"SELECT min({column}) FROM {table}").fetchone()[0] > highest


def test_every_table_is_strict(db: sqlite3.Connection) -> None:
    """No column accepts a value of another type."""
    tables = db.execute(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'"
    )
    assert {name for name, strict in tables.fetchall() if not strict} == set()


def test_every_trigger_is_tested() -> None:
    """REFUSED has a case for each trigger of schema.sql."""
    messages = re.findall(r"RAISE\(ABORT, '([^']+)'\)", SCHEMA)
    assert len(messages) == SCHEMA.count("CREATE TRIGGER")
    assert not [m for m in messages if not any(re.search(why, m) for _, why in REFUSED)]


def dump(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("runs", "events", "slots")]
