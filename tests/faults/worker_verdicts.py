"""The checks of the drill's workers: the start of each attempt, its steps, its pauses.

The notes of the worker (see drill_worker.py) are compared with the ledger, exit records and telemetry.
Note: an interrupted save may exist or not, so an attempt may resume from that step or not.  A checkpoint
that was noted as saved must exist; an attempt must never resume from a damaged one.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol import rundir
from mosaicd.protocol.states import Want
from tests.faults.ledger import TWICE, Ledger
from tests.harness.daemon import DaemonHarness

#: The events that do not end a pause.
_STILL = (Kind.SET, Kind.HOLD, Kind.RELEASE)


@dataclass
class Checkpoints:
    """The checkpoints of one run by the worker's notes: step -> hash if complete, and the steps in doubt."""

    complete: dict[int, str] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)

    @property
    def best(self) -> int | None:
        return max(self.complete, default=None)

    def note(self, word: str, rest: list[str]) -> None:
        step = int(rest[0])
        match word:
            case "saving":
                self.doubtful.add(step)
            case "saved":
                self.doubtful.discard(step)
                self.complete[step] = rest[1]
            case "damaging":
                self.complete.pop(step, None)
                self.doubtful.add(step)
            case "damaged":
                self.doubtful.discard(step)

    def candidates(self) -> dict[int, str | None]:
        """Return step -> hash of the possible checkpoints: the newest complete one, later doubtful ones."""
        best = self.best
        steps: dict[int, str | None] = {} if best is None else {best: self.complete[best]}
        return steps | {step: None for step in self.doubtful if best is None or step >= best}


@dataclass
class Attempt:
    """The notes of one attempt."""

    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    start: int | None = None
    has_started: bool = False
    has_ended: bool = False
    has_saved: bool = False


class Notes:
    """The notes of all workers of one harness, and the faults in them."""

    def __init__(self, ledger: Ledger, notes: Path, fresh: Mapping[str, bool]) -> None:
        self._ledger = ledger
        self._notes = notes
        self._fresh = fresh
        self.checkpoints: dict[str, Checkpoints] = {}
        self.attempts: dict[str, dict[int, Attempt]] = {}
        self.wrong: list[str] = []
        self.figures: Counter[str] = Counter()

    def read(self, run: Run) -> None:
        """Read the notes of a run.  Note: read the original of a retry before the retry."""
        self.checkpoints[run.run_id] = checkpoints = Checkpoints()
        attempts = self.attempts.setdefault(run.run_id, {})
        path = self._notes / run.run_id
        for line in path.read_text().splitlines() if path.exists() else []:
            word, number, *rest = line.split()
            attempt = attempts.setdefault(int(number), Attempt())
            match word:
                case "started":
                    attempt.has_started = True
                case "ending":
                    attempt.has_ended = True
                case "wrong":
                    self._add_fault(run, line)
                case "step":
                    attempt.steps.append(int(rest[0]))
                    attempt.times.append(float(rest[1]))
                case "fresh" | "resumed":
                    self._began(run, line, attempt, rest)
                case "skipped":
                    self.figures["damaged_skipped"] += 1
                case "saving" | "saved" | "damaging" | "damaged" | "unsaved":
                    checkpoints.note(word, rest)
                    attempt.has_saved = attempt.has_saved or word == "saved"
                    self.figures["saves_failed"] += word == "unsaved"

    def _add_fault(self, run: Run, text: str) -> None:
        self.wrong.append(f"{run.run_id}: {text}")

    def _began(self, run: Run, line: str, attempt: Attempt, rest: list[str]) -> None:
        """Compare where an attempt began with the checkpoints that existed."""
        candidates, may_begin_at_0 = self._candidates(run)
        if not rest:
            if not may_begin_at_0:
                self._add_fault(run, f"{line}: began at step 0, though {candidates} existed")
            return
        attempt.start, sha256 = int(rest[0]), rest[1]
        self.figures["resumed_from_checkpoint"] += 1
        if attempt.start not in candidates or candidates[attempt.start] not in (None, sha256):
            self._add_fault(run, f"{line}: resumed from this step, not from {candidates}")

    def _candidates(self, run: Run) -> tuple[dict[int, str | None], bool]:
        """Return the checkpoints of the run or its nearest origin, and whether it may begin at step 0."""
        candidates: dict[int, str | None] = {}
        is_fresh = self._fresh.get(run.run_id)  # unknown if the reply to the retry was lost
        origin: Run | None = run
        while origin is not None:
            checkpoints = self.checkpoints[origin.run_id]
            candidates |= checkpoints.candidates()
            if checkpoints.best is not None:
                return candidates, origin is not run and is_fresh is None
            if is_fresh:
                break
            origin = self._ledger.revisions[origin.origin][-1] if origin.origin else None
        return candidates, True


def of_workers(
    ledger: Ledger, notes: Path, harness: DaemonHarness, fresh: Mapping[str, bool]
) -> tuple[list[str], Counter[str]]:
    """Check every worker; return the faults, and how often each situation occurred."""
    worker_notes = Notes(ledger, notes, fresh)
    progress = _progress(harness)
    for run_id, revisions in ledger.revisions.items():
        last = revisions[-1]
        worker_notes.read(last)
        if last.kind != "worker":
            continue
        if not (last.can_pause and last.can_checkpoint):
            worker_notes.wrong.append(f"{run_id}: the capabilities of its worker are unknown")
        attempts = worker_notes.attempts[run_id]
        for number, attempt in attempts.items():
            exit = next((run.exit for run in revisions if run.attempt == number and run.exit), None)
            path = harness.attempt(run_id, number)
            worker_notes.wrong += [
                f"{run_id}/{number}: {fault}" for fault in _of_attempt(attempt, exit, path)
            ]
        worker_notes.wrong += [
            f"{run_id}: {fault}" for fault in _of_pauses(ledger.events[run_id], revisions, attempts)
        ]
        worker_notes.wrong += [f"{run_id}: {fault}" for fault in _of_releases(revisions, attempts)]
        worker_notes.figures.update(_situations(ledger.events[run_id], revisions))
        steps = (last.exit or {}).get("steps")
        if steps is not None and progress[run_id].get("steps") != steps:
            worker_notes.wrong.append(
                f"{run_id}: its row counts {progress[run_id].get('steps')} steps, its exit {steps}"
            )
    return worker_notes.wrong, worker_notes.figures


def _progress(harness: DaemonHarness) -> dict[str, dict[str, Any]]:
    connection = sqlite3.connect(f"file:{harness.state_dir / 'registry.sqlite3'}?mode=ro", uri=True)
    try:
        return {
            run_id: json.loads(text)
            for run_id, text in connection.execute("SELECT run_id, progress FROM runs")
        }
    finally:
        connection.close()


def _of_attempt(attempt: Attempt, exit: Mapping[str, Any] | None, path: Path) -> list[str]:
    """Check that each step counts once in the notes, the telemetry and the exit record; return the faults."""
    wrong = []
    first = (attempt.start or 0) + 1
    if attempt.steps != list(range(first, first + len(attempt.steps))):
        wrong.append(f"{TWICE} resumed from {attempt.start} and did the steps {attempt.steps}")
    seqs, reported = _telemetry(path)
    if any(a >= b for a, b in pairwise(seqs)):
        wrong.append(f"the telemetry has the seqs {seqs}")
    if any(a >= b for a, b in pairwise(reported)) or not set(reported) <= set(attempt.steps):
        wrong.append(f"{TWICE} did the steps {attempt.steps}, its telemetry has {reported}")
    if exit is None or (exit.get("exit_code") is None and exit.get("signal") is None):
        return wrong
    shed = (exit.get("shed") or {}).get("telemetry_records")
    ends = [attempt.start or 0, *attempt.steps][-1 if attempt.has_ended else -2 :]
    if attempt.has_started and (exit.get("steps") or 0) not in ends:
        wrong.append(
            f"exit.json has {exit.get('steps')} steps, done were {attempt.steps} from {attempt.start}"
        )
    if not shed and (seqs != list(range(1, len(seqs) + 1)) or len(seqs) < exit.get("telemetry_seq", 0)):
        wrong.append(f"of {exit.get('telemetry_seq')} records only {seqs} exist, and none is counted as shed")
    return wrong


def _telemetry(path: Path) -> tuple[list[int], list[int]]:
    """Return the seqs of all telemetry records of an attempt, and the steps in them."""
    name = rundir.TELEMETRY
    files = path.iterdir() if path.exists() else ()
    segments = [
        (offset, file) for file in files if (offset := rundir.segment_offset(name, file.name)) is not None
    ]
    data = b"".join(file.read_bytes() for _, file in sorted(segments))
    lines = data[: data.rfind(b"\n") + 1]  # a killed shim or a full disk leaves an incomplete last line
    records = [json.loads(line) for line in lines.splitlines()]
    steps = [record["data"]["global_step"] for record in records if record["kind"] == "step"]
    return [record["seq"] for record in records], steps


def _of_pauses(events: list[Event], revisions: list[Run], attempts: dict[int, Attempt]) -> list[str]:
    """Return the steps that were done in PAUSE though no other request was made, as faults."""
    times = sorted(time for attempt in attempts.values() for time in attempt.times)
    wrong = []
    for number, event in enumerate(events):
        is_wanted = revisions[number].want is Want.PAUSE and not _is_pause_withdrawn(events[:number])
        if event.kind is Kind.PAUSED and is_wanted:
            end = next((later.at for later in events[number + 1 :] if later.kind not in _STILL), float("inf"))
            wrong += [
                f"a step at {time}, though paused from {event.at} to {end}"
                for time in times
                if event.at < time < end
            ]
    return wrong


def _is_pause_withdrawn(before: list[Event]) -> bool:
    """Return whether a resume was requested since the run last worked; then it may work before it freezes."""
    for event in reversed(before):
        if event.kind in (Kind.STARTED, Kind.CONTINUED, Kind.PAUSED):
            return False
        if event.kind is Kind.RESUME_REQUESTED:
            return True
    return False


def _of_releases(revisions: list[Run], attempts: dict[int, Attempt]) -> list[str]:
    """Check that a released run holds no slot and that its worker ended well or saved; return the faults."""
    wrong = []
    for before, run in pairwise(revisions):
        if not run.released:
            continue
        if run.slots or run.is_holding or run.pid is not None:
            wrong.append(f"released, but holds the slots {run.slots}, pid {run.pid}")
        attempt = attempts.get(run.attempt, Attempt())
        if not before.released and not (attempt.has_ended or attempt.has_saved or attempt.start is not None):
            wrong.append(
                f"attempt {run.attempt} was released with {before.exit}, but neither saved nor ended well"
            )
    return wrong


def _situations(events: list[Event], revisions: list[Run]) -> Counter[str]:
    figures: Counter[str] = Counter(workers=1)
    for event, run in zip(events, revisions, strict=True):
        figures["released"] += event.kind is Kind.RELEASED
        figures["came_back"] += event.kind is Kind.DISPATCHED and bool(run.attempt > 1 + run.retries_used)
        figures["requeued"] += event.kind is Kind.REQUEUED
        figures["paused_cooperatively"] += (
            event.kind is Kind.PAUSED and event.data.get("mode") == "cooperative"
        )
        figures["paused_frozen"] += event.kind is Kind.PAUSED and event.data.get("mode") == "freeze"
    figures["retried_by_hand"] += revisions[0].origin is not None
    return figures


def of_released(harness: DaemonHarness) -> list[str]:
    """Check that released runs have no process and no slot; return the faults."""
    wrong = []
    for run in harness.call("run.list", live=True)["runs"]:
        if not (run["released"] and run["state"] == "PAUSE"):
            continue
        pids = harness.pids(run["run_id"])
        now = harness.get(run["run_id"])
        if pids and now["rev"] == run["rev"]:
            wrong.append(f"{run['run_id']} is released and has the processes {pids}")
        if run["slots"] or run["cpus"]["granted"] is not None:
            wrong.append(f"{run['run_id']} is released and holds {run['slots']}, {run['cpus']}")
    return wrong
