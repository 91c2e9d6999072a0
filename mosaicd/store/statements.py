"""The SQL of the registry, read once from schema.sql and queries.sql.

`split` cuts a script into statements, because `executescript` would silently commit an open transaction.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from importlib import resources

_NAMED = re.compile(r"^-- name: (\w+)\n-- ([^\n]+\.)\n(.+?;)\s*$", re.M | re.S)
_FOLDER = resources.files("mosaicd.store")


def split(script: str) -> Iterator[str]:
    """Yield the statements of `script`, each trigger in one piece.

    Raises ValueError if the last is unfinished.
    """
    pending = ""
    for line in script.splitlines(keepends=True):
        if not pending and (not line.strip() or line.lstrip().startswith("--")):
            continue
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if pending.strip():
        raise ValueError(f"unfinished statement: {pending.strip()[:80]}")


def parse(text: str) -> dict[str, str]:
    """Return name -> SQL from a file of named statements.

    Raises ValueError for a block without name or sentence.
    """
    statements: dict[str, str] = {}
    for block in re.split(r"\n(?=-- name: )", text)[1:]:
        match = _NAMED.fullmatch(block.strip())
        if match is None or match[1] in statements:
            raise ValueError(f"not a named statement, or named twice: {block.strip()[:80]}")
        statements[match[1]] = match[3]
    return statements


def read(name: str) -> str:
    """Return the text of a file of this package."""
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


SCHEMA: str = read("schema.sql")
QUERIES: Mapping[str, str] = parse(read("queries.sql"))
