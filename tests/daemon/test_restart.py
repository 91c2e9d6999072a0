"""The daemon's death is nobody's death, and nothing starts twice."""

import os
import signal

from tests.daemon.house import House, eventually


def test_runs_live_through_kill_9_of_the_daemon(house: House) -> None:
    """Same processes, same states, no line lost or doubled; one that ended meanwhile has its exact code."""
    gates = [house.home / "gate0", house.home / "gate1"]
    runs = [house.program("ticker", str(gate)) for gate in gates]
    before = [house.until(run_id, "EXEC") for run_id in runs]
    for run_id in runs:
        eventually(lambda run_id=run_id: house.stdout(run_id).count(b"\n"), lambda n: n > 20, "lines")
    house.kill()
    gates[0].touch()
    eventually(
        lambda: os.path.exists(house.attempt(runs[0]) / "exit.json"),
        bool,
        "the first run ends while the daemon is down",
    )
    house.start()

    first = house.ended(runs[0])
    assert (first["exit_code"], first["pid"], first["attempt"]) == (7, before[0]["pid"], 1)
    second = house.get(runs[1])
    assert (second["state"], second["pid"], second["attempt"]) == ("EXEC", before[1]["pid"], 1)
    gates[1].touch()
    assert house.ended(runs[1])["exit_code"] == 7
    for run_id in runs:
        numbers = list(map(int, house.stdout(run_id).split()))
        assert numbers == list(range(1, len(numbers) + 1))


def test_runs_live_through_kill_9_of_the_launcher(house: House) -> None:
    """A dead launcher disturbs no run; another one takes its place."""
    house.allowed_warnings.append("launcher")
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    before = house.until(run_id, "EXEC")
    old = house.launcher_pid()
    os.kill(old, signal.SIGKILL)

    next_run = house.ended(house.submit("sh", "-c", "exit 5"))
    assert next_run["exit_code"] == 5
    assert house.launcher_pid() != old
    assert house.get(run_id)["pid"] == before["pid"]
    gate.touch()
    assert house.ended(run_id)["exit_code"] == 7


def test_a_waiting_run_survives_and_starts_once(build) -> None:  # type: ignore[no-untyped-def]
    """What was acknowledged and not yet started is started once after a crash."""
    house = build(cpus={"slots": 1})
    first = house.submit("sleep", "60")
    house.until(first, "EXEC")
    waiting = [house.submit("sh", "-c", "echo once") for _ in range(3)]
    house.restart()

    house.call("run.stop", run_id=first, grace_s=0)
    for run_id in waiting:
        run = house.ended(run_id)
        assert run["attempt"] == 1 and house.stdout(run_id) == b"once\n"


def test_pause_survives_a_restart(house: House) -> None:
    """A run paused before the crash is PAUSE after it, and resumes."""
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    house.until(run_id, "EXEC")
    house.call("run.pause", run_id=run_id)
    house.until(run_id, "PAUSE")
    house.restart()
    assert house.get(run_id)["state"] == "PAUSE"
    gate.touch()
    house.call("run.resume", run_id=run_id)
    assert house.ended(run_id)["exit_code"] == 7


def test_stop_asked_before_a_crash_is_carried_out_after_it(house: House) -> None:
    """A stop that was acknowledged is not forgotten by kill -9."""
    run_id = house.submit("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    house.until(run_id, "EXEC")
    house.call("run.stop", run_id=run_id, grace_s=1)
    house.restart()
    assert house.ended(run_id)["outcome"] == "cancelled"


def test_orderly_stop_leaves_runs_alive(house: House) -> None:
    """SIGTERM ends the daemon with 0 and no run."""
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    pid = house.until(run_id, "EXEC")["pid"]
    assert house.stop() == 0
    assert house.pids(run_id) == [pid]
    house.start()
    gate.touch()
    assert house.ended(run_id)["exit_code"] == 7


def test_lost_shim_ends_its_tree_and_says_so(house: House) -> None:
    """kill -9 of a shim: a teardown shim ends the orphaned tree; the run is interrupted, shim_lost."""
    house.allowed_warnings.append("shim of run")
    run_id = house.submit("sh", "-c", "trap '' TERM HUP PIPE; while :; do sleep 0.05; done")
    house.until(run_id, "EXEC")
    [shim] = house.shims()
    os.kill(shim, signal.SIGKILL)

    run = house.ended(run_id)
    assert run["outcome"] == "interrupted" and run["cause"]["kind"] == "shim_lost"
    assert house.pids(run_id) == []


def test_lost_shim_is_retried_by_policy(house: House) -> None:
    """With retries left, a lost shim means another attempt in a directory of its own."""
    house.allowed_warnings.append("shim of run")
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate), retries=1)
    house.until(run_id, "EXEC")
    [shim] = house.shims()
    os.kill(shim, signal.SIGKILL)
    eventually(
        lambda: house.get(run_id),
        lambda run: run["attempt"] == 2 and run["state"] == "EXEC",
        "a second attempt",
    )
    gate.touch()

    run = house.ended(run_id)
    assert run["exit_code"] == 7 and run["retries_used"] == 1
    assert (house.attempt(run_id, 1) / "launch.json").exists() and (
        house.attempt(run_id, 2) / "exit.json"
    ).exists()
