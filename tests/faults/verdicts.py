"""The checks at the end of a harness: its runs, its watcher, its files, slots and processes."""

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

#: The warnings that a daemon may log while its processes are killed.
ALLOWED = (
    Catalogue.RUN_FAULTED, Catalogue.LAUNCHER_LOST, Catalogue.FACT_REFUSED, Catalogue.RECORD_TORN,
    Catalogue.SHIM_LOST, Catalogue.FATAL_ERROR,
    Catalogue.WAL_BUSY,  # the drill itself reads the registry
    Catalogue.WATCHER_LAGS,  # the watcher connects again with its cursor
)  # fmt: skip
#: The warnings that a daemon may log while writes fail.
ALLOWED_OF_DISKS = (
    Catalogue.COMMIT_RETRIED, Catalogue.RUN_NOT_RECORDED, Catalogue.CHECKPOINT_FAILED, Catalogue.PRUNE_FAILED,
    Catalogue.LAUNCH_FAILED, Catalogue.LAUNCH_DELAYED, Catalogue.TEARDOWN_FAILED, Catalogue.ENVIRONMENT_LEFT,
    Catalogue.SHIM_CRASHED, Catalogue.RECORD_TORN,
)  # fmt: skip


def let_all_end(harness: DrillHarness, deadline_s: float) -> None:
    """Stop all live runs, also runs that are still being submitted, and wait until no run is live."""
    stopped: set[str] = set()

    def stop_live() -> list[Any]:
        harness.lift(again=True)
        runs = harness.call("run.list", live=True)["runs"]
        for run in runs:
            if run["run_id"] not in stopped:
                stopped.add(run["run_id"])
                harness.call("run.stop", run_id=run["run_id"], grace_s=0.1)
        return [(run["run_id"], run["state"], run["want"], run["attempt"], run["cause"]) for run in runs]

    wait_until(stop_live, lambda runs: runs == [], "every run ends", deadline_s)


def of_runs(ledger: Ledger, notes: Path, harness: DaemonHarness) -> list[str]:
    """Compare the recorded end of every run with the notes of its program; return the faults."""
    wrong = []
    for run_id, revisions in ledger.revisions.items():
        path = notes / run_id
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        wrong += [f"{run_id}: {fault}" for fault in _of_run(revisions, lines)]
    wait_until(
        lambda: [run_id for run_id in ledger.revisions if _has_environment(harness, run_id)],
        lambda run_ids: run_ids == [],
        "the environment files of ended runs are removed",
    )
    unknown = {path.name for path in (harness.state_dir / "runs").iterdir()} - ledger.revisions.keys()
    return wrong + [f"directories that belong to no run: {sorted(unknown)[:10]}"] * bool(unknown)


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
        wrong.append(f"attempts {beyond} were started, the last in the ledger is {last.attempt}")
    if last.state is not State.TERM:
        return [*wrong, f"is in {last.state}, not in TERM"]
    for number in range(1, last.attempt + 1):
        wrong += _of_attempt(number, revisions, started, endings.get(number))
    return wrong


def _of_attempt(number: int, revisions: list[Run], started: Counter[int], ending: str | None) -> list[str]:
    history = [run for run in revisions if run.attempt == number]
    exit = next((run.exit for run in reversed(history) if run.exit is not None), None)
    final = history[-1]
    lost = any((run.fault or {}).get("kind") == CauseKind.SHIM_LOST for run in history)
    if exit is None:
        return (
            []
            if lost or any(run.fault for run in history)
            else [f"attempt {number} has no recorded end: {final}"]
        )
    code, number_of_signal = exit.get("exit_code"), exit.get("signal")
    is_natural = not (exit.get("stop") or exit.get("released") or exit.get("fault") or lost)
    if number_of_signal in (signal.SIGTERM, signal.SIGKILL) and any(map(_is_asked_to_release, history)):
        is_natural = False
    if (code is not None or number_of_signal is not None) and not started[number] and is_natural:
        return [f"attempt {number} ended with {code}/{number_of_signal} and was never started"]
    if not is_natural:
        return []
    if ending is None:
        return [f"attempt {number} ended with {dict(exit)}, but its program noted no end"]
    intended = (int(ending), None) if ending.isdecimal() else (None, SIGNALS[ending])
    if (code, number_of_signal) != intended:
        return [f"attempt {number} intended to end with {intended}, recorded is {(code, number_of_signal)}"]
    return _of_outcome(final, intended[0]) if final.state is State.TERM and final.exit is not None else []


def _is_asked_to_release(run: Run) -> bool:
    return run.pause_mode is PauseMode.RELEASE and run.state in (State.EXEC, State.PAUSE)


SIGNALS = {"KILL": 9, "SEGV": 11, "TERM": 15}


def _of_outcome(run: Run, code: int | None) -> list[str]:
    wanted = "succeeded" if code == 0 else "failed"
    return [] if run.outcome == wanted else [f"ended with code {code}: {run.outcome}, {run.cause}"]


def _has_environment(harness: DaemonHarness, run_id: str) -> bool:
    return (harness.state_dir / "runs" / run_id / rundir.ENVIRONMENT).exists()


def of_watcher(watcher: Watcher, ledger: Ledger) -> list[str]:
    """Compare the events that the watcher received, over all restarts, with the ledger; return the faults."""
    expected = ledger.seqs
    try:
        wait_until(
            lambda: len(watcher.seen),
            lambda seen: seen >= len(expected),
            "the last event at the watcher",
        )
    except AssertionError as error:
        return [str(error)]
    if watcher.seen == expected:
        return []
    first = next((pair for pair in zip(watcher.seen, expected, strict=False) if pair[0] != pair[1]), None)
    return [f"the watcher received {len(watcher.seen)} of {len(expected)} events; first difference {first}"]


def of_harness(harness: DrillHarness, cpus: int, gpus: int, has_failed_writes: bool = False) -> list[str]:
    """Stop the daemon; return the faults: slots in use, processes that remain, unexpected warnings."""
    wrong = []
    health = harness.call("daemon.health")
    free = health["cpus"]["free"], health["gpus"]["free"]
    if free != (cpus, gpus):
        wrong.append(f"{free} of {(cpus, gpus)} CPUs and GPUs are free")
    if health["quarantine"]:
        wrong.append(f"quarantined runs: {health['quarantine'][:3]}")
    connection = sqlite3.connect(f"file:{harness.state_dir / 'registry.sqlite3'}?mode=ro", uri=True)
    if connection.execute("SELECT count(*) FROM slots").fetchone()[0]:
        wrong.append("the slot table is not empty")
    integrity = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    connection.close()
    if integrity != "ok":
        wrong.append(f"integrity_check of the registry: {integrity}")
    harness.run_ids = set()
    if harness.stop() != 0:
        wrong.append(f"the daemon exited with {harness.process and harness.process.returncode}")

    def live_shims() -> list[int]:
        harness.lift(again=True)
        return harness.shims()

    wait_until(live_shims, lambda pids: pids == [], "no shim is left", 60)
    if pids := processes.pids_with_marker(*(path.name for path in (harness.state_dir / "runs").iterdir())):
        wrong.append(f"processes of runs are left: {pids}")
    return wrong + loud_lines(harness.log, ALLOWED + ALLOWED_OF_DISKS * has_failed_writes)
