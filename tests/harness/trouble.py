"""Trouble that no test asserts on: warnings and errors in logs, and rows that differ from the replay."""

import json
import logging
import re
import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path

from mosaicd.core.fsm import Event, Kind, replay
from mosaicd.log import Entry

_LOUD = re.compile(r"WARNING|ERROR|CRITICAL|Traceback")
_CODE = re.compile(r"^\S+ [A-Z]+ (LOG\d{4}) ")


def loud_lines(log: Path, allowed: Collection[Entry]) -> list[str]:
    """Return the warnings and errors in a daemon's log, without records of allowed entries."""
    if not log.exists():
        return []
    lines = [line for line in log.read_text(errors="replace").splitlines() if _LOUD.search(line)]
    codes = {entry.code for entry in allowed}
    return [f"log: {line}" for line in lines if _code_of(line) not in codes]


def logged(log: Path, entry: Entry, *words: str) -> list[str]:
    """Return the records of `entry` in a daemon's log that contain all `words`."""
    if not log.exists():
        return []
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if _code_of(line) == entry.code and all(word in line for word in words)]


def entries(records: Iterable[logging.LogRecord]) -> list[Entry | None]:
    """Return the entry of each log record; None for a record of free text."""
    return [getattr(record, "mosaic_entry", None) for record in records]


def _code_of(line: str) -> str | None:
    found = _CODE.match(line)
    return found[1] if found else None


def replay_differs(path: Path) -> list[str]:
    """Return a sentence for each run whose replayed events differ from its row."""
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        events: dict[str, list[Event]] = {}
        query = "SELECT run_id, kind, at, who, data FROM events ORDER BY seq"
        for run_id, kind, at, who, data in connection.execute(query):
            events.setdefault(run_id, []).append(Event(Kind(kind), at, who, json.loads(data)))
        rows = list(connection.execute("SELECT run_id, state, rev, outcome FROM runs"))
    finally:
        connection.close()
    trouble = []
    for run_id, *row in rows:
        run = replay(events[run_id])
        replayed = [run.state, run.rev, run.outcome]
        if replayed != row:
            trouble.append(f"replay of {run_id} gives {replayed}, its row has {row}")
    return trouble
