"""Putting a copy in the registry's place: staged whole, decided by one rename, finished by who comes next.

A reader would get wrong: nothing is overwritten.  The staged file becomes RESTORED when it is complete and
durable; from then on `finish`, called under the state directory's lock (also at every start of the daemon),
moves the present registry aside with its WAL and gives RESTORED its name, however often it is interrupted.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mosaicd import crash_points
from mosaicd.core.fsm import Event, apply
from mosaicd.core.run import Run
from mosaicd.safe_files import sync_to_disk
from mosaicd.store import commit_mark, quarantine
from mosaicd.store.backup import copy_pages, judge, open_quietly
from mosaicd.store.database import open_writer, rows
from mosaicd.store.event_writes import change_of, write_change
from mosaicd.store.rows import BadRow
from mosaicd.store.statements import QUERIES

RESTORED = ".restored"
ASIDE = "set-aside"
_PARTS = ("", "-wal", "-shm", commit_mark.SUFFIX)

Decide = Callable[[Run], Sequence[Event]]


@dataclass(slots=True)
class Staged:
    """What will be there: the ledger's new epoch, how many runs, and what became of those that lived."""

    epoch: str
    last_seq: int
    runs: int
    version: int
    told: dict[str, list[str]] = field(default_factory=dict)


def live_runs(copy: Path) -> dict[str, int]:
    """Return run id -> attempt of every run that lived when the copy was made; UnfitCopy."""
    judge(copy)
    with closing(open_quietly(copy)) as connection:
        found = connection.execute(QUERIES["states"]).fetchall()
        attempts = connection.execute(QUERIES["live_attempts"]).fetchall()
    known = {str(run_id): -1 for run_id, *_ in found}
    return known | {str(run_id): int(attempt or 0) for run_id, attempt in attempts}


def stage(copy: Path, registry: Path, decide: Decide, at: float) -> Staged:
    """Make RESTORED beside `registry` from a copy, with a new epoch and what `decide` says of live runs.

    UnfitCopy, DamagedRegistry or NewerRegistry, and nothing is decided.
    """
    judge(copy)
    partial = Path(f"{registry}{RESTORED}.part")
    _unlink(partial)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy_pages(copy, partial, reader=open_quietly)
        with closing(open_writer(partial)) as connection:  # migrates, too
            staged = _rewrite(connection, decide, at)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode = DELETE")
        sync_to_disk(partial)
        os.rename(partial, f"{registry}{RESTORED}")
        sync_to_disk(registry.parent)
    finally:
        _unlink(partial)
    return staged


def finish(registry: Path) -> Path | None:
    """Put RESTORED, if there is one, in place; return where the registry from before lies now.

    For the holder of the state directory's lock only.  Idempotent, also after a crash in its middle.
    """
    restored = Path(f"{registry}{RESTORED}")
    try:
        decided_at = restored.stat().st_mtime
    except FileNotFoundError:
        return None
    aside = aside_of(registry, decided_at)
    crash_points.reach("restore.decided")
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in _PARTS:
        with suppress(FileNotFoundError):
            os.rename(f"{registry}{part}", aside / f"{registry.name}{part}")
    sync_to_disk(aside)
    crash_points.reach("restore.set_aside")
    os.rename(restored, registry)
    sync_to_disk(registry.parent)
    return aside


def aside_of(registry: Path, decided_at: float) -> Path:
    """Return the directory that a registry is moved to when another takes its place, decided then."""
    return registry.parent / ASIDE / f"{datetime.fromtimestamp(decided_at, UTC):%Y%m%dT%H%M%S.%fZ}"


def _rewrite(connection: sqlite3.Connection, decide: Decide, at: float) -> Staged:
    epoch = secrets.token_hex(8)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(QUERIES["change_epoch"], (epoch,))
    connection.execute(QUERIES["set_meta"], ("behind", json.dumps({"why": "an older copy was restored"})))
    told: dict[str, list[str]] = {}
    for row in rows(connection, QUERIES["live_runs"]):
        try:
            run = quarantine.judged(connection, row)
        except BadRow as error:
            quarantine.set_aside(connection, int(row["n"]), str(error), at)
            told.setdefault("quarantined", []).append(str(row["run_id"]))
            continue
        events = decide(run)
        _append(connection, run, events)
        word = str(events[-1].kind) if events else "as_found"
        told.setdefault(word, []).append(run.run_id)
    connection.execute("COMMIT")
    last = connection.execute(QUERIES["last_seq"]).fetchone()
    count = connection.execute(QUERIES["count_all"]).fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    return Staged(epoch, last[0] if last else 0, count, version, told)


def _append(connection: sqlite3.Connection, run: Run, events: Sequence[Event]) -> None:
    steps: list[tuple[Run, Event]] = []
    for event in events:
        steps.append((apply(steps[-1][0] if steps else run, event), event))
    if steps:
        write_change(connection, change_of(run, steps))


def _unlink(path: Path) -> None:
    for part in (*_PARTS, "-journal"):
        Path(f"{path}{part}").unlink(missing_ok=True)
