"""The ledger of a drill, folded independently of the daemon: every revision of every run, and the held slots.

`Ledger.read` reads the events that are new since its last call and folds them with the daemon's own pure
`apply`.  The rows of the registry and the replies to clients are compared with the result.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

from mosaicd.core.fsm import Event, Kind, apply, submitted
from mosaicd.core.run import Run
from mosaicd.protocol.states import Want
from mosaicd.store.database import rows
from mosaicd.store.rows import read_run

#: The first word of a fault whose kind is counted in the figures.
LOST, TWICE, REUSED = "LOST:", "TWICE:", "REUSED:"
#: The fields of a reply that the ledger determines too.
FIELDS = (
    "state", "want", "held", "attempt", "outcome", "priority", "digest", "pause_mode", "retries_used", "pid",
    "released", "name", "origin",
)  # fmt: skip


class Ledger:
    """Every committed event of one state directory, and the run after each event."""

    def __init__(self, registry: Path, cpus: int) -> None:
        self._registry = registry
        self._cpus = cpus
        self.revisions: dict[str, list[Run]] = {}
        self.events: dict[str, list[Event]] = {}
        self.seqs: list[tuple[int, str, str]] = []
        self._last_seq = 0
        self._verified: dict[str, int] = {}
        self._holding: dict[str, Run] = {}
        self._live_digests: dict[str, set[str]] = {}

    def read(self) -> list[str]:
        """Fold the new events and compare every row with its fold; return the faults."""
        if not self.seqs and not self._registry.exists():
            return []  # every daemon so far was killed before it created the registry
        connection = sqlite3.connect(f"file:{self._registry}?mode=ro", uri=True)
        try:
            connection.execute("BEGIN")
            has_tables = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'events'").fetchone()
            if not self.seqs and has_tables is None:
                return []  # every daemon so far was killed before the first COMMIT
            query = "SELECT seq, run_id, kind, at, who, data, rev FROM events WHERE seq > ? ORDER BY seq"
            events = connection.execute(query, (self._last_seq,)).fetchall()
            stored = rows(connection, "SELECT * FROM runs")
            slots = connection.execute("SELECT slot, run_id FROM slots").fetchall()
            count, most = connection.execute("SELECT count(*), max(seq) FROM events").fetchone()
        finally:
            connection.close()
        wrong = [fault for event in events for fault in self._fold(*event)]
        if (count, most or 0) != (len(self.seqs), self._last_seq):
            wrong.append(f"{LOST} the ledger has {count} events up to {most}; {len(self.seqs)} were read")
        return wrong + self._rows(stored) + self._slots(slots)

    def _fold(self, seq: int, run_id: str, kind: str, at: float, who: str, data: str, rev: int) -> list[str]:
        wrong = []
        event = Event(Kind(kind), at, who, json.loads(data))
        known = self.revisions.setdefault(run_id, [])
        if event.kind is Kind.SUBMITTED and known:
            return [f"{REUSED} seq {seq}: the id {run_id} is used a second time"]
        before = known[-1] if known else None
        run = submitted(event) if before is None else apply(before, event)
        known.append(run)
        self.events.setdefault(run_id, []).append(event)
        if run.rev != rev or run.rev != len(known):
            wrong.append(f"seq {seq}: event {len(known)} of {run_id} has the revision {rev}")
        if before is not None and before.is_final:
            wrong.append(f"seq {seq}: {run_id} left TERM by {kind}")
        self.seqs.append((seq, run_id, kind))
        self._last_seq = seq
        return wrong + self._hold(seq, run) + self._dedup(seq, run, event)

    def _hold(self, seq: int, run: Run) -> list[str]:
        if not run.is_holding:
            self._holding.pop(run.run_id, None)
            return []
        self._holding[run.run_id] = run
        taken = sum(run.cpus_granted or 0 for run in self._holding.values())
        gpus = [slot for run in self._holding.values() for slot in run.slots]
        if taken > self._cpus or len(gpus) != len(set(gpus)):
            return [f"seq {seq}: {taken} of {self._cpus} CPUs and the GPUs {sorted(gpus)} are in use"]
        return []

    def _dedup(self, seq: int, run: Run, event: Event) -> list[str]:
        live = self._live_digests.setdefault(run.digest, set())
        if run.is_final or run.want is Want.STOP:  # a run that is being stopped accepts no duplicate
            live.discard(run.run_id)
        elif event.kind is Kind.SUBMITTED:
            live.add(run.run_id)
            if len(live) > 1 and run.labels.get("dedup") == "attach":
                return [f"seq {seq}: {sorted(live)} are live with one digest, though dedup is attach"]
        return []

    def _rows(self, stored: list[dict[str, Any]]) -> list[str]:
        wrong = []
        for row in stored:
            run_id, rev = row["run_id"], row["rev"]
            if self._verified.get(run_id) == rev == len(self.revisions.get(run_id, ())):
                continue
            folded = self.revisions[run_id][-1]
            if _via_json(read_run(row)) != _via_json(folded):
                wrong.append(f"the row of {run_id} is {read_run(row)}, its events lead to {folded}")
            self._verified[run_id] = rev
        missing = self.revisions.keys() - {row["run_id"] for row in stored}
        return wrong + [f"{LOST} {run_id} has events and no row" for run_id in missing]

    def _slots(self, slots: list[tuple[int, str]]) -> list[str]:
        stored = sorted(slots)
        folded = sorted((slot, run.run_id) for run in self._holding.values() for slot in run.slots)
        return [] if stored == folded else [f"the slot table has {stored}, the ledger leads to {folded}"]

    def contradiction(self, reply: dict[str, Any]) -> str | None:
        """Return how the run object of a reply differs from the revision that it names, or None."""
        known = self.revisions.get(reply["run_id"], [])
        if reply["rev"] > len(known):
            return f"{LOST} a reply has revision {reply['rev']} of {reply['run_id']}; there are {len(known)}"
        then = known[reply["rev"] - 1]
        exit = then.exit or {}
        folded = {name: getattr(then, name) for name in FIELDS}
        folded |= {name: exit.get(name) for name in ("exit_code", "signal")}
        replied = {name: reply[name] for name in (*FIELDS, "exit_code", "signal")}
        if folded == replied and dict(then.labels) == reply["labels"]:
            return None
        return f"{reply['run_id']} at revision {reply['rev']}: the reply has {replied}, the ledger {folded}"


def _via_json(run: Run) -> dict[str, Any]:
    """Return the run after a way through JSON, so that tuples and lists compare equal."""
    plain: dict[str, Any] = json.loads(json.dumps(run.to_dict()))
    return plain
