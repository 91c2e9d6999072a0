"""How it is known that the registry lacks commits, before any run directory is read.

A registry cannot know what it lost.  The commit mark beside it says so, or the note that a replacement leaves
in its `meta`.
"""

import json
import sqlite3
from dataclasses import dataclass

from mosaicd.store.recovery_report import read_meta
from mosaicd.store.statements import QUERIES

#: A name in the registry's table `meta`: stored, never renamed.
_LOSS = "behind"


@dataclass(frozen=True, slots=True)
class Loss:
    """Why commits are missing.

    `set_aside`: all of them are, and the lost registry lies there.  `is_restored_copy`: runs that wait are
    held, because they may have been stopped since the copy was made.
    """

    why: str
    set_aside: str | None = None
    is_restored_copy: bool = False

    @property
    def has_new_epoch(self) -> bool:
        """Whether the ledger has its new epoch already."""
        return self.set_aside is not None or self.is_restored_copy


def write_loss(connection: sqlite3.Connection, loss: Loss) -> None:
    """Keep in a registry that takes the place of another what it lacks, until `forget_loss`."""
    kept = {"why": loss.why, "set_aside": loss.set_aside}
    connection.execute(QUERIES["set_meta"], (_LOSS, json.dumps(kept)))


def forget_loss(connection: sqlite3.Connection) -> None:
    """Note that the run directories have been read: nothing more can be recovered."""
    connection.execute(QUERIES["drop_meta"], (_LOSS,))


def find_loss(connection: sqlite3.Connection, mark: tuple[str, int] | None, epoch: str | None) -> Loss | None:
    """Return what the registry is known to lack, or None; `mark` is the commit mark beside it.

    `epoch` is None for a new registry.
    """
    kept = read_meta(connection, _LOSS)
    if kept:
        set_aside = kept.get("set_aside")
        return Loss(str(kept.get("why")), set_aside, is_restored_copy=set_aside is None)
    if mark is None or epoch is None:
        return None
    last = connection.execute(QUERIES["last_seq"]).fetchone()
    missing = mark[1] - (int(last[0]) if last else 0)
    if mark[0] == epoch:
        return Loss(f"its newest {missing} events are gone") if missing > 0 else None
    before = connection.execute(QUERIES["meta"], ("epoch_before",)).fetchone()
    if before is not None and before[0] == mark[0]:
        return None  # killed between the COMMIT of the new epoch and its mark
    return Loss("it is not the registry that was used last")
