"""Find out whether the registry lacks commits, before any run directory is read.

A registry that lost commits cannot notice that itself.  The commit mark beside it shows the loss; a registry
that replaced another one has a note in its table `meta`.
"""

import json
import sqlite3
from dataclasses import dataclass

from mosaicd.store.recovery_report import read_meta_object
from mosaicd.store.statements import QUERIES

#: A name in the registry's table `meta`: stored, never renamed.
_LOSS = "behind"


@dataclass(frozen=True, slots=True)
class Loss:
    """The reason why commits are missing.

    `set_aside`: the directory of the old registry, if all commits are missing.  `is_restored_copy`: waiting
    runs are then held, because they may have been stopped since the copy was made.
    """

    why: str
    set_aside: str | None = None
    is_restored_copy: bool = False

    @property
    def has_new_epoch(self) -> bool:
        """Return whether the ledger already has its new epoch."""
        return self.set_aside is not None or self.is_restored_copy


def write_loss(connection: sqlite3.Connection, loss: Loss) -> None:
    """Record the loss in a registry that replaces another one, until `forget_loss`."""
    kept = {"why": loss.why, "set_aside": loss.set_aside}
    connection.execute(QUERIES["set_meta"], (_LOSS, json.dumps(kept)))


def forget_loss(connection: sqlite3.Connection) -> None:
    """Remove the record of a loss, once the runs have been recovered from the run directories."""
    connection.execute(QUERIES["drop_meta"], (_LOSS,))


def find_loss(connection: sqlite3.Connection, mark: tuple[str, int] | None, epoch: str | None) -> Loss | None:
    """Return the known loss of the registry, or None.

    `mark` is the commit mark beside the registry; `epoch` is None for a new registry.
    """
    kept = read_meta_object(connection, _LOSS)
    if kept:
        set_aside = kept.get("set_aside")
        return Loss(str(kept.get("why")), set_aside, is_restored_copy=set_aside is None)
    if mark is None or epoch is None:
        return None
    last = connection.execute(QUERIES["last_seq"]).fetchone()
    missing = mark[1] - (int(last[0]) if last else 0)
    if mark[0] == epoch:
        return Loss(f"its newest {missing} events are missing") if missing > 0 else None
    before = connection.execute(QUERIES["meta"], ("epoch_before",)).fetchone()
    if before is not None and before[0] == mark[0]:
        return None  # the daemon was killed between the COMMIT of the new epoch and its mark
    return Loss("it is not the registry that was used last")
