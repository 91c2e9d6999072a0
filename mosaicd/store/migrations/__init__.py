"""Migrate older registries: one step for each version, each in its own exclusive transaction.

A new file gets `schema.sql`; an older file gets the steps of `STEPS` that it lacks.  So a change of the
schema is made in both; a test migrates a frozen file of every version and compares the schemas.  A step is a
list of statements, never an `executescript`, which would commit half a step.
"""

import sqlite3
from collections.abc import Mapping

from mosaicd.store.statements import SCHEMA, read, split

#: The version that schema.sql describes.
VERSION = 2

#: "MOSA": marks a file as a registry, also for `file`.
APPLICATION_ID = 0x4D4F5341

#: Version -> the script that migrates a registry of the version before to it.
STEPS: Mapping[int, str] = {2: read("migrations/to_2.sql")}


class NewerRegistry(Exception):
    """A newer mosaicd wrote the registry: install that version, or use another state directory."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has version {found}, this mosaicd reads up to {known}. {self.__doc__}")
        self.found = found
        self.known = known


def migrate(
    connection: sqlite3.Connection,
    path: str,
    *,
    version: int = VERSION,
    schema: str = SCHEMA,
    steps: Mapping[int, str] = STEPS,
) -> int:
    """Create the schema or migrate it to `version`; return the former version.

    Raises NewerRegistry, and changes nothing then.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > version:
        raise NewerRegistry(path, found, version)
    if found == 0:
        _carry_out(connection, schema, 0, version)
    for target in range(found + 1, version + 1) if found else ():
        _carry_out(connection, steps[target], target - 1, target)
    return found


def _carry_out(connection: sqlite3.Connection, script: str, before: int, after: int) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == before:  # no other process was faster
            for statement in split(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {after}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has often rolled back already
            connection.execute("ROLLBACK")
        raise
