"""What must be true of the drill's workers: where each attempt began, what it counted, what held still.

The worker's own notes (see drill_worker.py) are held against the ledger, the exit records and the telemetry.
Note: a save that was cut short may be there or not, so such a step may be gone on from
and need not; a checkpoint that was noted as saved must be, and one that was torn never.
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

#: Events that do not end a pause.
_STILL = (Kind.SET, Kind.HOLD, Kind.RELEASE)


@dataclass
class Shelf:
    """The checkpoints of one run as its worker noted them: step -> hash of what is whole, steps in doubt."""

    whole: dict[int, str] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)

    @property
    def best(self) -> int | None:
        return max(self.whole, default=None)

    def note(self, word: str, rest: list[str]) -> None:
        step = int(rest[0])
        match word:
            case "saving":
                self.doubtful.add(step)
            case "saved":
                self.doubtful.discard(step)
                self.whole[step] = rest[1]
            case "tearing":
                self.whole.pop(step, None)
                self.doubtful.add(step)
            case "torn":
                self.doubtful.discard(step)

    def candidates(self) -> dict[int, str | None]:
        """Return where one may go on: the newest that is whole, and what may be there beyond it."""
        best = self.best
        found: dict[int, str | None] = {} if best is None else {best: self.whole[best]}
        return found | {step: None for step in self.doubtful if best is None or step >= best}


@dataclass
class Attempt:
    """What the worker of one attempt noted."""

    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    start: int | None = None
    has_started: bool = False
    has_ended: bool = False
    has_saved: bool = False


class Notes:
    """Everything that the workers of one harness noted."""

    def __init__(self, ledger: Ledger, notes: Path, fresh: Mapping[str, bool]) -> None:
        self._ledger = ledger
        self._notes = notes
        self._fresh = fresh
        self.shelves: dict[str, Shelf] = {}
        self.attempts: dict[str, dict[int, Attempt]] = {}
        self.wrong: list[str] = []
        self.figures: Counter[str] = Counter()

    def read(self, run: Run) -> None:
        """Read one run's; of one that another is a retry of, first."""
        self.shelves[run.run_id] = shelf = Shelf()
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
                    self._blame(run, line)
                case "step":
                    attempt.steps.append(int(rest[0]))
                    attempt.times.append(float(rest[1]))
                case "fresh" | "resumed":
                    self._began(run, line, attempt, rest)
                case "skipped":
                    self.figures["torn_skipped"] += 1
                case "saving" | "saved" | "tearing" | "torn" | "unsaved":
                    shelf.note(word, rest)
                    attempt.has_saved = attempt.has_saved or word == "saved"
                    self.figures["saves_failed"] += word == "unsaved"

    def _blame(self, run: Run, text: str) -> None:
        self.wrong.append(f"{run.run_id}: {text}")

    def _began(self, run: Run, line: str, attempt: Attempt, rest: list[str]) -> None:
        """Hold where an attempt began against what was there to go on from."""
        candidates, may_be_new = self._candidates(run)
        if not rest:
            if not may_be_new:
                self._blame(run, f"{line}: began anew, though {candidates} was saved")
            return
        attempt.start, sha256 = int(rest[0]), rest[1]
        self.figures["resumed_from_checkpoint"] += 1
        if attempt.start not in candidates or candidates[attempt.start] not in (None, sha256):
            self._blame(run, f"{line}: went on from there, and not from {candidates}")

    def _candidates(self, run: Run) -> tuple[dict[int, str | None], bool]:
        """Where it may go on, and whether it may begin anew: its own, else the nearest origin's."""
        found: dict[int, str | None] = {}
        is_fresh = self._fresh.get(run.run_id)  # unknown where the answer to the retry was lost
        one: Run | None = run
        while one is not None:
            shelf = self.shelves[one.run_id]
            found |= shelf.candidates()
            if shelf.best is not None:
                return found, one is not run and is_fresh is None
            if is_fresh:
                break
            one = self._ledger.revisions[one.origin][-1] if one.origin else None
        return found, True


def of_workers(
    ledger: Ledger, notes: Path, harness: DaemonHarness, fresh: Mapping[str, bool]
) -> tuple[list[str], Counter[str]]:
    """Look at every worker; return what is wrong, and how often what was to be tried has happened."""
    read = Notes(ledger, notes, fresh)
    progress = _progress(harness)
    for run_id, revisions in ledger.revisions.items():
        last = revisions[-1]
        read.read(last)
        if last.kind != "worker":
            continue
        if not (last.can_pause and last.can_checkpoint):
            read.wrong.append(f"{run_id}: what its worker can do was not known")
        attempts = read.attempts[run_id]
        for number, attempt in attempts.items():
            exit = next((run.exit for run in revisions if run.attempt == number and run.exit), None)
            path = harness.attempt(run_id, number)
            read.wrong += [f"{run_id}/{number}: {fault}" for fault in _of_attempt(attempt, exit, path)]
        read.wrong += [
            f"{run_id}: {fault}" for fault in _of_pauses(ledger.events[run_id], revisions, attempts)
        ]
        read.wrong += [f"{run_id}: {fault}" for fault in _of_releases(revisions, attempts)]
        read.figures.update(_happened(ledger.events[run_id], revisions))
        steps = (last.exit or {}).get("steps")
        if steps is not None and progress[run_id].get("steps") != steps:
            read.wrong.append(
                f"{run_id}: its row counts {progress[run_id].get('steps')} steps, its exit {steps}"
            )
    return read.wrong, read.figures


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
    """Each step is counted once, in the notes, in the telemetry and in the exit record."""
    wrong = []
    first = (attempt.start or 0) + 1
    if attempt.steps != list(range(first, first + len(attempt.steps))):
        wrong.append(f"{TWICE} went on from {attempt.start} and did the steps {attempt.steps}")
    seqs, told = _telemetry(path)
    if any(a >= b for a, b in pairwise(seqs)):
        wrong.append(f"the telemetry is numbered {seqs}")
    if any(a >= b for a, b in pairwise(told)) or not set(told) <= set(attempt.steps):
        wrong.append(f"{TWICE} did the steps {attempt.steps}, its telemetry has {told}")
    if exit is None or (exit.get("exit_code") is None and exit.get("signal") is None):
        return wrong
    shed = (exit.get("shed") or {}).get("telemetry_records")
    ends = [attempt.start or 0, *attempt.steps][-1 if attempt.has_ended else -2 :]
    if attempt.has_started and (exit.get("steps") or 0) not in ends:
        wrong.append(f"counted are {exit.get('steps')} steps, done were {attempt.steps} from {attempt.start}")
    if not shed and (seqs != list(range(1, len(seqs) + 1)) or len(seqs) < exit.get("telemetry_seq", 0)):
        wrong.append(f"of {exit.get('telemetry_seq')} records there are {seqs}, and none is said to be shed")
    return wrong


def _telemetry(path: Path) -> tuple[list[int], list[int]]:
    """Return the numbers of all records of an attempt, and the steps that they tell of."""
    name = rundir.TELEMETRY
    found = [(rundir.segment_offset(name, one.name), one) for one in path.iterdir()] if path.exists() else []
    data = b"".join(one.read_bytes() for offset, one in sorted((o, p) for o, p in found if o is not None))
    whole = data[: data.rfind(b"\n") + 1]  # the shim may have been killed, or the disk full, within a line
    records = [json.loads(line) for line in whole.splitlines()]
    steps = [record["data"]["global_step"] for record in records if record["kind"] == "step"]
    return [record["seq"] for record in records], steps


def _of_pauses(events: list[Event], revisions: list[Run], attempts: dict[int, Attempt]) -> list[str]:
    """No step is done while the ledger says PAUSE and no other request has been made."""
    times = sorted(time for attempt in attempts.values() for time in attempt.times)
    wrong = []
    for number, event in enumerate(events):
        is_wanted = revisions[number].want is Want.PAUSE and not _was_called_off(events[:number])
        if event.kind is Kind.PAUSED and is_wanted:
            end = next((later.at for later in events[number + 1 :] if later.kind not in _STILL), float("inf"))
            wrong += [
                f"a step at {time}, paused from {event.at} to {end}"
                for time in times
                if event.at < time < end
            ]
    return wrong


def _was_called_off(before: list[Event]) -> bool:
    """Whether a resume was asked for since it last worked: it may be thawed before it is frozen again."""
    for event in reversed(before):
        if event.kind in (Kind.STARTED, Kind.CONTINUED, Kind.PAUSED):
            return False
        if event.kind is Kind.RESUME_REQUESTED:
            return True
    return False


def _of_releases(revisions: list[Run], attempts: dict[int, Attempt]) -> list[str]:
    """What was let go holds nothing, and its worker left well or had saved something to come back to."""
    wrong = []
    for before, run in pairwise(revisions):
        if not run.released:
            continue
        if run.slots or run.is_holding or run.pid is not None:
            wrong.append(f"released, and holds {run.slots}, pid {run.pid}")
        attempt = attempts.get(run.attempt, Attempt())
        if not before.released and not (attempt.has_ended or attempt.has_saved or attempt.start is not None):
            wrong.append(
                f"attempt {run.attempt} was released with {before.exit}, and had neither saved nor left"
            )
    return wrong


def _happened(events: list[Event], revisions: list[Run]) -> Counter[str]:
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
    """While a run stays released there is no process of it."""
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
