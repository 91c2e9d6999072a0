"""Trouble that no test asserted on: loud log lines, and a ledger that does not lead to its rows."""

import json
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mosaicd.core.fsm import Event, Kind, replay

_LOUD = re.compile(r"WARNING|ERROR|CRITICAL|Traceback")


def loud_lines(log: Path, allowed: Sequence[str]) -> list[str]:
    """Return the lines of a daemon's log that nobody allowed."""
    if not log.exists():
        return []
    lines = [line for line in log.read_text(errors="replace").splitlines() if _LOUD.search(line)]
    return [f"log: {line}" for line in lines if not any(re.search(pattern, line) for pattern in allowed)]


def replay_differs(path: Path) -> list[str]:
    """Return the runs whose events, replayed, do not equal their row."""
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
            trouble.append(f"replay of {run_id} gives {replayed}, its row says {row}")
    return trouble
