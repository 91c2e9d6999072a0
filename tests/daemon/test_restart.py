"""Runs survive a crash of the daemon, and no run starts twice."""

import os
import signal
from functools import partial

from mosaicd.log import Catalogue
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def test_runs_survive_kill_9_of_the_daemon(harness: DaemonHarness) -> None:
    """After kill -9 of the daemon, runs have the same process and state, no line is lost or doubled, and an
    end meanwhile is exact."""
    gates = [harness.home / "gate0", harness.home / "gate1"]
    runs = [harness.program("ticker", str(gate)) for gate in gates]
    before = [harness.until(run_id, "EXEC") for run_id in runs]
    for run_id in runs:
        wait_until(partial(harness.stdout, run_id), lambda out: out.count(b"\n") > 20, "20 lines")
    harness.kill()
    gates[0].touch()
    wait_until(
        lambda: os.path.exists(harness.attempt(runs[0]) / "exit.json"),
        bool,
        "the first run ends while the daemon is down",
    )
    harness.start()

    first = harness.ended(runs[0])
    assert (first["exit_code"], first["pid"], first["attempt"]) == (7, before[0]["pid"], 1)
    second = harness.get(runs[1])
    assert (second["state"], second["pid"], second["attempt"]) == ("EXEC", before[1]["pid"], 1)
    gates[1].touch()
    assert harness.ended(runs[1])["exit_code"] == 7
    for run_id in runs:
        numbers = list(map(int, harness.stdout(run_id).split()))
        assert numbers == list(range(1, len(numbers) + 1))


def test_runs_survive_kill_9_of_the_launcher(harness: DaemonHarness) -> None:
    """kill -9 of the launcher affects no run; the daemon starts another launcher."""
    harness.allow(Catalogue.LAUNCHER_LOST)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    before = harness.until(run_id, "EXEC")
    old = harness.launcher_pid()
    os.kill(old, signal.SIGKILL)

    next_run = harness.ended(harness.submit("sh", "-c", "exit 5"))
    assert next_run["exit_code"] == 5
    assert harness.launcher_pid() != old
    assert harness.get(run_id)["pid"] == before["pid"]
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_waiting_run_survives_and_starts_once(build: Build) -> None:
    """A waiting run is started exactly once after a crash of the daemon."""
    harness = build(cpus={"slots": 1})
    first = harness.submit("sleep", "60")
    harness.until(first, "EXEC")
    waiting = [harness.submit("sh", "-c", "echo once") for _ in range(3)]
    harness.restart()

    harness.call("run.stop", run_id=first, grace_s=0)
    for run_id in waiting:
        run = harness.ended(run_id)
        assert run["attempt"] == 1 and harness.stdout(run_id) == b"once\n"


def test_pause_survives_a_restart(harness: DaemonHarness) -> None:
    """A run that was paused before a crash is PAUSE after it, and resumes."""
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    harness.restart()
    assert harness.get(run_id)["state"] == "PAUSE"
    gate.touch()
    harness.call("run.resume", run_id=run_id)
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_stop_before_a_crash_is_carried_out_after_it(harness: DaemonHarness) -> None:
    """A stop that was acknowledged before kill -9 is carried out by the next daemon."""
    run_id = harness.submit("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    harness.until(run_id, "EXEC")
    harness.call("run.stop", run_id=run_id, grace_s=1)
    harness.restart()
    assert harness.ended(run_id)["outcome"] == "cancelled"


def test_orderly_stop_leaves_runs_alive(harness: DaemonHarness) -> None:
    """SIGTERM stops the daemon with exit code 0 and ends no run."""
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    pid = harness.until(run_id, "EXEC")["pid"]
    assert harness.stop() == 0
    assert harness.pids(run_id) == [pid]
    harness.start()
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_lost_shim_interrupts_its_run(harness: DaemonHarness) -> None:
    """After kill -9 of a shim, a teardown shim ends the process tree; the run is interrupted with cause
    shim_lost."""
    harness.allow(Catalogue.SHIM_LOST)
    run_id = harness.submit("sh", "-c", "trap '' TERM HUP PIPE; while :; do sleep 0.05; done")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGKILL)

    run = harness.ended(run_id)
    assert run["outcome"] == "interrupted" and run["cause"]["kind"] == "shim_lost"
    assert harness.pids(run_id) == []


def test_a_lost_shim_is_retried_in_a_new_directory(harness: DaemonHarness) -> None:
    """If a run has retries, a lost shim leads to another attempt in its own directory."""
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate), retries=1)
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGKILL)
    wait_until(
        lambda: harness.get(run_id),
        lambda run: run["attempt"] == 2 and run["state"] == "EXEC",
        "attempt 2",
    )
    gate.touch()

    run = harness.ended(run_id)
    assert run["exit_code"] == 7 and run["retries_used"] == 1
    assert (harness.attempt(run_id, 1) / "launch.json").exists() and (
        harness.attempt(run_id, 2) / "exit.json"
    ).exists()
