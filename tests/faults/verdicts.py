"""What must be true of a harness at the end: of its runs, of its watcher, of its files and processes."""

import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from mosaicd.core.run import Run
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir
from mosaicd.protocol.states import CauseKind, PauseMode, State
from tests.faults.clients import Watcher
from tests.faults.drill_harness import DrillHarness
from tests.faults.ledger import TWICE, Ledger
from tests.harness import processes
from tests.harness.daemon import DaemonHarness
from tests.harness.trouble import loud_lines
from tests.harness.waiting import wait_until

#: What a daemon may say aloud when its processes are killed all the time.
ALLOWED = (
    Catalogue.RUN_FAULTED, Catalogue.LAUNCHER_LOST, Catalogue.FACT_REFUSED, Catalogue.RECORD_TORN,
    Catalogue.SHIM_LOST, Catalogue.FATAL_ERROR,
    Catalogue.WAL_BUSY,  # the drill itself reads the registry
    Catalogue.WATCHER_LAGS,  # the watcher comes back from its cursor
)  # fmt: skip
#: And when writes fail for a while.
ALLOWED_OF_DISKS = (
    Catalogue.COMMIT_RETRIED, Catalogue.RUN_NOT_RECORDED, Catalogue.CHECKPOINT_FAILED, Catalogue.PRUNE_FAILED,
    Catalogue.LAUNCH_FAILED, Catalogue.LAUNCH_DELAYED, Catalogue.TEARDOWN_FAILED, Catalogue.ENVIRONMENT_LEFT,
    Catalogue.SHIM_CRASHED, Catalogue.RECORD_TORN,
    Catalogue.REGISTRY_FAILED,
)  # fmt: skip


def let_all_end(harness: DrillHarness, deadline_s: float) -> None:
    """Stop what lives, and what a request under way still submits, and wait until nothing lives."""
    asked: set[str] = set()

    def left() -> list[Any]:
        harness.lift(again=True)
        runs = harness.call("run.list", live=True)["runs"]
        for run in runs:
            if run["run_id"] not in asked:
                asked.add(run["run_id"])
                harness.call("run.stop", run_id=run["run_id"], grace_s=0.1)
        return [(run["run_id"], run["state"], run["want"], run["attempt"], run["cause"]) for run in runs]

    wait_until(left, lambda runs: runs == [], "everything ends", deadline_s)


def of_runs(ledger: Ledger, notes: Path, harness: DaemonHarness) -> list[str]:
    """Compare every run's end with what its program wrote down."""
    wrong = []
    for run_id, revisions in ledger.revisions.items():
        path = notes / run_id
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        wrong += [f"{run_id}: {fault}" for fault in _of_run(revisions, lines)]
    wait_until(
        lambda: [run_id for run_id in ledger.revisions if _has_environment(harness, run_id)],
        lambda left: left == [],
        "the environments of ended runs go",
    )
    strangers = {path.name for path in (harness.state_dir / "runs").iterdir()} - ledger.revisions.keys()
    return wrong + [f"directories of no run: {sorted(strangers)[:10]}"] * bool(strangers)


def _of_run(revisions: list[Run], lines: list[list[str]]) -> list[str]:
    last = revisions[-1]
    started = Counter(int(line[1]) for line in lines if line[0] == "started")
    endings = {int(line[1]): line[2] for line in lines if line[0] == "ending"}
    wrong = [
        f"{TWICE} attempt {number} was started {count} times"
        for number, count in started.items()
        if count > 1
    ]
    wrong += [f"{TWICE} {' '.join(line)}" for line in lines if line[0] in ("overlap", "shared")]
    if beyond := [number for number in started if number > last.attempt]:
        wrong.append(f"attempts {beyond} were started, the ledger has {last.attempt}")
    if last.state is not State.TERM:
        return [*wrong, f"is {last.state}"]
    for number in range(1, last.attempt + 1):
        wrong += _of_attempt(number, revisions, started, endings.get(number))
    return wrong


def _of_attempt(number: int, revisions: list[Run], started: Counter[int], ending: str | None) -> list[str]:
    mine = [run for run in revisions if run.attempt == number]
    exit = next((run.exit for run in reversed(mine) if run.exit is not None), None)
    final = mine[-1]
    lost = any((run.fault or {}).get("kind") == CauseKind.SHIM_LOST for run in mine)
    if exit is None:
        return [] if lost or any(run.fault for run in mine) else [f"attempt {number} has no end: {final}"]
    code, number_of_signal = exit.get("exit_code"), exit.get("signal")
    is_natural = not (exit.get("stop") or exit.get("released") or exit.get("fault") or lost)
    if number_of_signal in (signal.SIGTERM, signal.SIGKILL) and any(map(_is_asked_to_leave, mine)):
        is_natural = False
    if (code is not None or number_of_signal is not None) and not started[number] and is_natural:
        return [f"attempt {number} ended with {code}/{number_of_signal} and was never started"]
    if not is_natural:
        return []
    if ending is None:
        return [f"attempt {number} ended with {dict(exit)}, its program had not come to its end"]
    meant = (int(ending), None) if ending.isdecimal() else (None, SIGNALS[ending])
    if (code, number_of_signal) != meant:
        return [f"attempt {number} meant to end with {meant}, recorded is {(code, number_of_signal)}"]
    return _of_outcome(final, meant[0]) if final.state is State.TERM and final.exit is not None else []


def _is_asked_to_leave(run: Run) -> bool:
    return run.pause_mode is PauseMode.RELEASE and run.state in (State.EXEC, State.PAUSE)


SIGNALS = {"KILL": 9, "SEGV": 11, "TERM": 15}


def _of_outcome(run: Run, code: int | None) -> list[str]:
    wanted = "succeeded" if code == 0 else "failed"
    return [] if run.outcome == wanted else [f"ended with code {code}: {run.outcome}, {run.cause}"]


def _has_environment(harness: DaemonHarness, run_id: str) -> bool:
    return (harness.state_dir / "runs" / run_id / rundir.ENVIRONMENT).exists()


def of_watcher(watcher: Watcher, ledger: Ledger) -> list[str]:
    """The watcher's sequence, over all restarts, is the ledger."""
    wanted = ledger.seqs
    try:
        wait_until(lambda: len(watcher.seen), lambda seen: seen >= len(wanted), "the watcher is at the end")
    except AssertionError as error:
        return [str(error)]
    if watcher.seen == wanted:
        return []
    first = next((pair for pair in zip(watcher.seen, wanted, strict=False) if pair[0] != pair[1]), None)
    return [f"the watcher saw {len(watcher.seen)} of {len(wanted)} events; first difference {first}"]


def of_harness(harness: DrillHarness, cpus: int, gpus: int, has_failed_writes: bool = False) -> list[str]:
    """Slots are all free, and no process, shim or loud line is left."""
    wrong = []
    health = harness.call("daemon.health")
    free = health["cpus"]["free"], health["gpus"]["free"]
    if free != (cpus, gpus):
        wrong.append(f"free are {free} of {(cpus, gpus)}")
    if health["quarantine"]:
        wrong.append(f"in quarantine: {health['quarantine'][:3]}")
    connection = sqlite3.connect(f"file:{harness.state_dir / 'registry.sqlite3'}?mode=ro", uri=True)
    if connection.execute("SELECT count(*) FROM slots").fetchone()[0]:
        wrong.append("slots are held in the table")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    connection.close()
    if found != "ok":
        wrong.append(f"integrity: {found}")
    harness.run_ids = set()
    if harness.stop() != 0:
        wrong.append(f"the daemon left with {harness.process and harness.process.returncode}")

    def shims_left() -> list[int]:
        harness.lift(again=True)
        return harness.shims()

    wait_until(shims_left, lambda left: left == [], "no shim is left", 60)
    if left := processes.marked(*(path.name for path in (harness.state_dir / "runs").iterdir())):
        wrong.append(f"processes of runs are left: {left}")
    return wrong + loud_lines(harness.log, ALLOWED + ALLOWED_OF_DISKS * has_failed_writes)
