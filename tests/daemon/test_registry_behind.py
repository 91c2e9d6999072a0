"""A registry that opens cleanly but is behind its run directories.

No run is lost, no pruned run comes back, and no two runs share a slot, also if the daemon crashes meanwhile.
"""

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from mosaicd import crash_points
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Conflict
from mosaicd.rundirs.attempt_files import held_attempts
from tests.daemon.lost_log import (
    REGISTRY,
    empty_log,
    first_fast_others_slow,
    lose_log,
    start_and_die_at,
    warnings,
)  # fmt: skip
from tests.daemon.test_registry_lost import EXACT, allow, garble_header, links
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def test_lost_commits_lose_no_run(build: Build) -> None:
    """If the write-ahead log is lost, live runs keep their slots, ended runs have their exact end, and
    waiting runs wait.

    A warning reports the recovery, cursors from before are a conflict, and the key of a recovered run stays
    in use.
    """
    harness = build(cpus={"slots": 2}, gpus={"static": 1})
    empty_log(harness)
    failed = harness.ended(harness.submit("sh", "-c", "exit 3", key="one"))
    stopped = harness.submit("sleep", "60")
    harness.until(stopped, "EXEC")
    harness.call("run.stop", run_id=stopped, grace_s=0)
    over = harness.ended(stopped)
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate), gpus=1)
    before = harness.until(live, "EXEC")
    waiting, withdrawn = harness.submit("echo", "late", gpus=1), harness.submit("true", hold=True)
    harness.call("run.stop", run_id=withdrawn)
    harness.wait_until_cleaned_up(failed["run_id"], stopped, withdrawn)
    old = harness.call("daemon.hello")
    lose_log(harness)
    harness.start()

    hello = harness.call("daemon.hello")
    assert hello["epoch"] != old["epoch"]
    with pytest.raises(Conflict):
        harness.call("run.watch", since=old["last_seq"], epoch=old["epoch"])
    [warning] = warnings(harness)
    assert "2 ended, 1 live and 1 waiting" not in warning and "3 ended, 1 live and 1 waiting" in warning
    for run in (failed, over):
        now = harness.get(run["run_id"])
        assert {name: now[name] for name in EXACT} == {name: run[name] for name in EXACT}
    assert harness.get(withdrawn)["outcome"] == "cancelled"
    now = harness.until(live, "EXEC")
    assert (now["pid"], now["slots"], now["attempt"]) == (before["pid"], before["slots"], 1)
    assert harness.call("daemon.health")["gpus"]["free"] == 0
    assert harness.get(waiting)["state"] == "INIT"
    again = harness.call("run.submit", command=["sh", "-c", "exit 3"], cwd=str(harness.home), key="one")
    assert (again["run_id"], again["duplicate"]) == (failed["run_id"], True)
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7
    assert harness.ended(waiting)["outcome"] == "succeeded"
    harness.restart()
    assert warnings(harness) == [warning] and harness.call("daemon.hello")["epoch"] == hello["epoch"]
    assert {event["who"] for event in harness.events(failed["run_id"])[1:]} == {"rebuild"}


def test_the_mark_shows_that_commits_are_lost(build: Build) -> None:
    """If no run directory shows the loss, the mark beside the registry does: a warning reports it, and the
    epoch is new."""
    harness = build()
    run_id = harness.submit("true", hold=True)
    empty_log(harness)
    harness.call("run.set", run_id=run_id, priority=5)
    old = harness.call("daemon.hello")
    lose_log(harness)
    harness.start()
    assert harness.call("daemon.hello")["epoch"] != old["epoch"]
    [warning] = warnings(harness)
    assert "its newest 1 events are missing" in warning
    assert harness.get(run_id)["priority"] == 0


def test_a_row_that_is_behind_is_recovered_from_its_directory(build: Build) -> None:
    """A run whose row is behind takes its attempts and its end from its directory.

    If another run has its slot since then, the other run keeps the slot and this run waits for its next
    attempt.
    """
    harness = build(cpus={"slots": 4}, gpus={"static": 1})
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    first = harness.program("ticker", str(gate), gpus=1, retries=2)
    harness.until(first, "EXEC")
    tried = harness.program("ticker", str(gate), retries=2)
    harness.until(tried, "EXEC")
    late = harness.submit("sh", "-c", "exit 5", hold=True)
    empty_log(harness)
    second = harness.program("ticker", str(gate), gpus=1, priority=100)
    harness.call("run.release", run_id=late)
    ended = harness.ended(late)
    harness.wait_until_cleaned_up(late)
    for run_id in (tried, first):
        [pid] = [pid for pid in harness.shims() if str(harness.attempt(run_id)) in links(pid)]
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: harness.get(tried), lambda run: (run["attempt"], run["state"]) == (2, "EXEC"), "attempt 2"
    )
    before = harness.until(second, "EXEC")
    wait_until(lambda: harness.get(first)["state"], lambda state: state == "INIT", "the first waits")
    held = partial(held_attempts, harness.state_dir / "runs" / first)
    wait_until(held, lambda attempts: not attempts, "the teardown shim exits")
    lose_log(harness)
    harness.start()

    now = harness.until(second, "EXEC")
    assert (now["pid"], now["slots"]) == (before["pid"], [0])
    waits = harness.get(first)
    assert (waits["state"], waits["attempt"], waits["retries_used"]) == ("INIT", 1, 1)
    retried = harness.until(tried, "EXEC")
    assert (retried["attempt"], retried["retries_used"]) == (2, 1)
    recovered = harness.get(late)
    assert {name: recovered[name] for name in EXACT} == {name: ended[name] for name in EXACT}
    [warning] = warnings(harness)
    assert "3 runs that the registry had in an older state" in warning and "1 live" in warning
    gate.touch()
    assert [harness.ended(run_id)["exit_code"] for run_id in (second, first, tried)] == [7, 7, 7]
    assert harness.get(first)["attempt"] == 2


def test_a_recovered_run_shares_no_slot(build: Build) -> None:
    """A lost run whose slot another run holds now is reported and quarantined; its slot stays reserved until
    no process of it is alive, also after the other run has ended."""
    harness = build(gpus={"static": 1})
    gates = [harness.home / "first", harness.home / "second"]
    empty_log(harness)
    first = harness.program("ticker", str(gates[0]), gpus=1)
    harness.until(first, "EXEC")
    lose_log(harness)
    hidden = harness.home / "hidden"
    shutil.move(harness.state_dir / "runs" / first, hidden)
    harness.start()
    second = harness.program("ticker", str(gates[1]), gpus=1)
    assert harness.until(second, "EXEC")["slots"] == [0]
    harness.kill()
    shutil.move(hidden, harness.state_dir / "runs" / first)
    harness.allow(Catalogue.RUN_NOT_RECOVERED, Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    harness.start()

    health = harness.call("daemon.health")
    [quarantined] = health["quarantine"]
    assert quarantined["run_id"] == first and f"run {second} holds the same slots" in quarantined["why"]
    assert any(first in warning for warning in warnings(harness))
    assert harness.until(second, "EXEC")["slots"] == [0]
    third = harness.submit("true", gpus=1)
    gates[1].touch()
    assert harness.ended(second)["exit_code"] == 7
    assert harness.get(third)["state"] == "INIT" and harness.call("daemon.health")["gpus"]["free"] == 0
    gates[0].touch()
    assert harness.ended(third)["outcome"] == "succeeded"
    harness.run_ids.discard(first)


def test_a_live_run_with_the_key_of_another_keeps_its_slot(build: Build) -> None:
    """Of two lost runs with one key, the second is reported and quarantined; its slots stay reserved until no
    process of it is alive."""
    harness = build(gpus={"static": 1})
    gate, hidden = harness.home / "gate", harness.home / "hidden"
    empty_log(harness)
    first = harness.submit("true", key="once")
    harness.ended(first)
    harness.wait_until_cleaned_up(first)
    lose_log(harness)
    shutil.move(harness.state_dir / "runs" / first, hidden)
    harness.start()
    second = harness.program("ticker", str(gate), gpus=1, key="once")
    harness.until(second, "EXEC")
    lose_log(harness)
    shutil.move(hidden, harness.state_dir / "runs" / first)
    harness.allow(Catalogue.RUN_NOT_RECOVERED, Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    harness.start()

    assert harness.get(first)["outcome"] == "succeeded"
    health = harness.call("daemon.health")
    [quarantined] = health["quarantine"]
    assert quarantined["run_id"] == second and f"run {first} has the same key" in quarantined["why"]
    assert health["gpus"]["free"] == 0 and any(second in warning for warning in warnings(harness))
    third = harness.submit("true", gpus=1)
    assert harness.get(third)["state"] == "INIT"
    gate.touch()
    assert harness.ended(third)["outcome"] == "succeeded"
    harness.run_ids.discard(second)


BEHIND = first_fast_others_slow(
    "recover.after_commit", "recover.before_commit", "startup.loaded", "startup.reconciled"
)
LOST = first_fast_others_slow(
    "replace.set_aside", "recover.before_commit", "replace.staged", "replace.decided", "recover.after_commit",
    "startup.loaded",
)  # fmt: skip


@pytest.mark.parametrize("point", BEHIND)
def test_a_crash_during_the_recovery_changes_nothing(build: Build, point: str) -> None:
    """If the daemon is killed during the recovery of lost commits, the next start has the same result and the
    same warning."""
    check_crash_during_recovery(build(cpus={"slots": 1}), point, is_damaged=False)


@pytest.mark.parametrize("point", LOST)
def test_a_crash_during_the_rebuild_changes_nothing(build: Build, point: str) -> None:
    """If the daemon is killed while it rebuilds a damaged registry, the next start has the same result and
    the same warning."""
    check_crash_during_recovery(build(cpus={"slots": 1}), point, is_damaged=True)


def check_crash_during_recovery(harness: DaemonHarness, point: str, *, is_damaged: bool) -> None:
    """Lose commits of one ended, one live and one waiting run, kill the daemon at `point`, and check the next
    start."""
    allow(harness)
    empty_log(harness)
    failed = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.wait_until_cleaned_up(failed["run_id"])
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    before = harness.until(live, "EXEC")
    waiting = harness.submit("true")
    old = harness.call("daemon.hello")
    lose_log(harness)
    if is_damaged:
        garble_header(harness.state_dir / REGISTRY)
    start_and_die_at(harness, point)
    harness.start()

    health = harness.call("daemon.health")
    assert health["epoch"] != old["epoch"]
    [warning] = health["warnings"]
    assert "1 ended, 1 live and 1 waiting" in warning
    now = harness.get(failed["run_id"])
    assert {name: now[name] for name in EXACT} == {name: failed[name] for name in EXACT}
    now = harness.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7 and harness.ended(waiting)["outcome"] == "succeeded"
    assert not list(harness.state_dir.glob("*.restored*"))
    harness.restart()
    assert harness.call("daemon.health")["warnings"] == [warning]


@pytest.mark.parametrize("point", first_fast_others_slow("replace.set_aside", "replace.decided"))
def test_a_restore_that_was_killed_is_finished_by_the_next_start(build: Build, point: str) -> None:
    """If `restore` is killed, the next start finishes it; a live run that the copy lacks is recovered."""
    harness = build()
    harness.allow(Catalogue.REGISTRY_BEHIND)
    copy = harness.home / "copy"
    harness.call("daemon.backup", path=str(copy))
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    before = harness.until(live, "EXEC")
    ended = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.wait_until_cleaned_up(ended["run_id"])
    harness.kill()
    killed = harness.run_daemon("--restore", str(copy), environment={crash_points.VARIABLE: point})
    assert killed.returncode == -signal.SIGKILL
    harness.start()
    now = harness.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    now = harness.get(ended["run_id"])
    assert {name: now[name] for name in EXACT} == {name: ended[name] for name in EXACT}
    assert len(list((harness.state_dir / "set-aside").iterdir())) == 1
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7


def test_a_frozen_run_stays_frozen_after_lost_commits(build: Build) -> None:
    """A run whose pause request is lost stays frozen, also after another kill during the start."""
    harness = build()
    empty_log(harness)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    lose_log(harness)
    start_and_die_at(harness, "startup.loaded")
    harness.start()
    now = harness.until(run_id, "PAUSE")
    assert now["want"] == "pause"
    harness.call("run.resume", run_id=run_id)
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_an_intact_registry_is_never_reported_as_behind(build: Build) -> None:
    """After each commit the mark agrees with the registry, so that an intact registry is never reported as
    behind."""
    harness = build()
    epoch = harness.call("daemon.hello")["epoch"]
    for _ in range(3):
        harness.ended(harness.submit("true", dedup="new"))
        mark = Path(f"{harness.state_dir / REGISTRY}-mark").read_text().split()
        assert mark == [epoch, f"{harness.call('daemon.health')['last_seq']:020d}"]
        harness.restart()
        assert harness.call("daemon.hello")["epoch"] == epoch and warnings(harness) == []
