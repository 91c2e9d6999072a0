"""Every SQL statement has a name and a sentence, compiles, and is used."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mosaicd.store
from mosaicd.store.database import open_writer
from mosaicd.store.statements import QUERIES, parse, read

SOURCES = "".join(source.read_text() for source in Path(mosaicd.store.__path__[0]).glob("*.py"))


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(path)
    yield connection
    connection.close()


def test_all_statements_are_loaded() -> None:
    """Every block of queries.sql is loaded."""
    assert len(QUERIES) == read("queries.sql").count(";\n")


@pytest.mark.parametrize("name", QUERIES)
def test_a_statement_compiles(db: sqlite3.Connection, name: str) -> None:
    """Each statement compiles with the schema and its own parameters."""
    sql = QUERIES[name]
    named = set(re.findall(r":(\w+)", sql))
    values: Any = dict.fromkeys(named) if named else [None] * sql.count("?")
    db.execute(f"EXPLAIN {sql}", values)


@pytest.mark.parametrize("name", QUERIES)
def test_a_statement_is_used(name: str) -> None:
    """Every statement is used by a module."""
    assert f'"{name}"' in SOURCES


HOT = """get_run update_run live_run_with_digest run_with_key events_since events_of_run slots_of newest_named
    ended_run live_runs count_live""".split()


@pytest.mark.parametrize("name", HOT)
def test_a_frequent_statement_uses_an_index(db: sqlite3.Connection, name: str) -> None:
    """No frequent statement scans a complete table."""
    sql = QUERIES[name]
    named = set(re.findall(r":(\w+)", sql))
    values: Any = dict.fromkeys(named, 1) if named else [1] * sql.count("?")
    plan = [detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step], plan


INVALID_BLOCKS = [
    "\n-- name: a\nSELECT 1;",
    "\n-- name: a\n-- no stop\nSELECT 1;",
    "\n-- name: a\n-- One.\nSELECT 1;\n-- name: a\n-- Two.\nSELECT 2;",
]


@pytest.mark.parametrize("text", INVALID_BLOCKS)
def test_a_block_without_sentence_is_refused(text: str) -> None:
    """Each block needs a name, which is used once, and a sentence."""
    with pytest.raises(ValueError, match="statement"):
        parse(text)
