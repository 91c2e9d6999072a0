"""How an older registry becomes today's: one step a version, each in its own exclusive transaction.

`schema.sql` is what a new file gets; `STEPS` is what files of older versions still need, so a change of
the schema is made in both, and a frozen file of every version in tests/store must come out the same.
A step holds statements, never `executescript`: that would commit half a step.
"""

import sqlite3
from collections.abc import Mapping

from mosaicd.store.statements import SCHEMA, read, split

#: The version that schema.sql describes.
VERSION = 2

#: "MOSA": what `file` and we know a registry by.
APPLICATION_ID = 0x4D4F5341

#: Version -> the script that leads there from the one before.
STEPS: Mapping[int, str] = {2: read("migrations/to_2.sql")}


class NewerRegistry(Exception):
    """The registry was written by a newer mosaicd; install that version, or use another state directory."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has version {found} and this mosaicd knows {known}. {self.__doc__}")
        self.found = found
        self.known = known


def bring_up(
    connection: sqlite3.Connection,
    path: str,
    *,
    version: int = VERSION,
    schema: str = SCHEMA,
    steps: Mapping[int, str] = STEPS,
) -> int:
    """Create or migrate to `version`; return the version found.  NewerRegistry changes nothing."""
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
        if connection.execute("PRAGMA user_version").fetchone()[0] == before:  # nobody was faster
            for statement in split(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {after}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has often rolled back already
            connection.execute("ROLLBACK")
        raise
