"""A registry that opens cleanly and is behind its run directories: no run is lost, none comes back that
should not, and no two share a slot, wherever a crash falls meanwhile."""

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
    begin_and_die,
    begin_log,
    lose_log,
    one_and_slowly,
    warnings,
)  # fmt: skip
from tests.daemon.test_registry_lost import EXACT, allow, garble_header, links
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def test_commits_that_are_lost_cost_no_run(build: Build) -> None:
    """The log is gone: who lives goes on in its slots, who ended has its exact end, who waited waits; it is
    said, cursors from before are a conflict, and its key is no other run's."""
    harness = build(cpus={"slots": 2}, gpus={"static": 1})
    begin_log(harness)
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
    harness.put_away(failed["run_id"], stopped, withdrawn)
    old = harness.call("daemon.hello")
    lose_log(harness)
    harness.start()

    hello = harness.call("daemon.hello")
    assert hello["epoch"] != old["epoch"]
    with pytest.raises(Conflict):
        harness.call("run.watch", since=old["last_seq"], epoch=old["epoch"])
    [said] = warnings(harness)
    assert "2 ended, 1 live and 1 waiting" not in said and "3 ended, 1 live and 1 waiting" in said
    for told in (failed, over):
        now = harness.get(told["run_id"])
        assert {name: now[name] for name in EXACT} == {name: told[name] for name in EXACT}
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
    assert warnings(harness) == [said] and harness.call("daemon.hello")["epoch"] == hello["epoch"]
    assert {event["who"] for event in harness.events(failed["run_id"])[1:]} == {"rebuild"}


def test_a_cut_log_is_noticed_by_its_mark(build: Build) -> None:
    """Where no directory tells of it, the mark does: a request that is lost is said, and the epoch is new."""
    harness = build()
    run_id = harness.submit("true", hold=True)
    begin_log(harness)
    harness.call("run.set", run_id=run_id, priority=5)
    old = harness.call("daemon.hello")
    lose_log(harness)
    harness.start()
    assert harness.call("daemon.hello")["epoch"] != old["epoch"]
    [said] = warnings(harness)
    assert "its newest 1 events are missing" in said
    assert harness.get(run_id)["priority"] == 0


def test_a_row_that_is_behind_goes_on_from_its_directory(build: Build) -> None:
    """Its attempt was lost, its slot another's since: the other lives on there, and it waits for its next."""
    harness = build(cpus={"slots": 4}, gpus={"static": 1})
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    first = harness.program("ticker", str(gate), gpus=1, retries=2)
    harness.until(first, "EXEC")
    tried = harness.program("ticker", str(gate), retries=2)
    harness.until(tried, "EXEC")
    late = harness.submit("sh", "-c", "exit 5", hold=True)
    begin_log(harness)
    second = harness.program("ticker", str(gate), gpus=1, priority=100)
    harness.call("run.release", run_id=late)
    ended = harness.ended(late)
    harness.put_away(late)
    for run_id in (tried, first):
        [pid] = [pid for pid in harness.shims() if str(harness.attempt(run_id)) in links(pid)]
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: harness.get(tried), lambda run: (run["attempt"], run["state"]) == (2, "EXEC"), "again")
    before = harness.until(second, "EXEC")
    wait_until(lambda: harness.get(first)["state"], lambda state: state == "INIT", "the first waits")
    held = partial(held_attempts, harness.state_dir / "runs" / first)
    wait_until(held, lambda attempts: not attempts, "what ended its tree leaves")
    lose_log(harness)
    harness.start()

    now = harness.until(second, "EXEC")
    assert (now["pid"], now["slots"]) == (before["pid"], [0])
    waits = harness.get(first)
    assert (waits["state"], waits["attempt"], waits["retries_used"]) == ("INIT", 1, 1)
    goes_on = harness.until(tried, "EXEC")
    assert (goes_on["attempt"], goes_on["retries_used"]) == (2, 1)
    there = harness.get(late)
    assert {name: there[name] for name in EXACT} == {name: ended[name] for name in EXACT}
    [said] = warnings(harness)
    assert "3 runs whose rows were behind" in said and "1 live" in said
    gate.touch()
    assert [harness.ended(run_id)["exit_code"] for run_id in (second, first, tried)] == [7, 7, 7]
    assert harness.get(first)["attempt"] == 2


def test_two_runs_never_share_a_slot_afterwards(build: Build) -> None:
    """A lost run whose slot another run holds now is reported and quarantined; its slot stays
    reserved until no process of it is alive, also after the other run has ended."""
    harness = build(gpus={"static": 1})
    gates = [harness.home / "first", harness.home / "second"]
    begin_log(harness)
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
    [aside] = health["quarantine"]
    assert aside["run_id"] == first and f"run {second} holds the same slots" in aside["why"]
    assert any(first in said for said in warnings(harness))
    assert harness.until(second, "EXEC")["slots"] == [0]
    third = harness.submit("true", gpus=1)
    gates[1].touch()
    assert harness.ended(second)["exit_code"] == 7
    assert harness.get(third)["state"] == "INIT" and harness.call("daemon.health")["gpus"]["free"] == 0
    gates[0].touch()
    assert harness.ended(third)["outcome"] == "succeeded"
    harness.run_ids.discard(first)


def test_a_run_at_work_whose_key_is_anothers_keeps_its_slot(build: Build) -> None:
    """Of two lost runs with one key, the second is reported and quarantined; its slots stay
    reserved until no process of it is alive."""
    harness = build(gpus={"static": 1})
    gate, hidden = harness.home / "gate", harness.home / "hidden"
    begin_log(harness)
    first = harness.submit("true", key="once")
    harness.ended(first)
    harness.put_away(first)
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
    [aside] = health["quarantine"]
    assert aside["run_id"] == second and f"run {first} has the same key" in aside["why"]
    assert health["gpus"]["free"] == 0 and any(second in said for said in warnings(harness))
    third = harness.submit("true", gpus=1)
    assert harness.get(third)["state"] == "INIT"
    gate.touch()
    assert harness.ended(third)["outcome"] == "succeeded"
    harness.run_ids.discard(second)


BEHIND = one_and_slowly(
    "recover.after_commit", "recover.before_commit", "startup.loaded", "startup.reconciled"
)
LOST = one_and_slowly(
    "replace.set_aside", "recover.before_commit", "replace.staged", "replace.decided", "recover.after_commit",
    "startup.loaded",
)  # fmt: skip


@pytest.mark.parametrize("point", BEHIND)
def test_a_crash_while_it_is_mended_changes_nothing(build: Build, point: str) -> None:
    """Killed while what is behind is mended: the next start comes to the same, and says so."""
    killed_while_mended(build(cpus={"slots": 1}), point, is_damaged=False)


@pytest.mark.parametrize("point", LOST)
def test_a_crash_while_it_is_made_again_changes_nothing(build: Build, point: str) -> None:
    """Killed while a damaged registry is made again: the next start comes to the same, and says so."""
    killed_while_mended(build(cpus={"slots": 1}), point, is_damaged=True)


def killed_while_mended(harness: DaemonHarness, point: str, *, is_damaged: bool) -> None:
    """One run ended, one lives, one waits; the registry breaks, and the daemon dies at the point."""
    allow(harness)
    begin_log(harness)
    failed = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.put_away(failed["run_id"])
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    before = harness.until(live, "EXEC")
    waiting = harness.submit("true")
    old = harness.call("daemon.hello")
    lose_log(harness)
    if is_damaged:
        garble_header(harness.state_dir / REGISTRY)
    begin_and_die(harness, point)
    harness.start()

    health = harness.call("daemon.health")
    assert health["epoch"] != old["epoch"]
    [said] = health["warnings"]
    assert "1 ended, 1 live and 1 waiting" in said
    now = harness.get(failed["run_id"])
    assert {name: now[name] for name in EXACT} == {name: failed[name] for name in EXACT}
    now = harness.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7 and harness.ended(waiting)["outcome"] == "succeeded"
    assert not list(harness.state_dir.glob("*.restored*"))
    harness.restart()
    assert harness.call("daemon.health")["warnings"] == [said]


@pytest.mark.parametrize("point", one_and_slowly("replace.set_aside", "replace.decided"))
def test_a_restore_that_was_killed_is_finished_by_the_next_start(build: Build, point: str) -> None:
    """An old copy, a run at work that it does not know, and a kill in the middle: the same as without it."""
    harness = build()
    harness.allow(Catalogue.REGISTRY_BEHIND)
    copy = harness.home / "copy"
    harness.call("daemon.backup", path=str(copy))
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    before = harness.until(live, "EXEC")
    ended = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.put_away(ended["run_id"])
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


def test_a_run_stays_frozen(build: Build) -> None:
    """Frozen by a request that is lost: it is not thawed behind its owner's back, nor after one more kill."""
    harness = build()
    begin_log(harness)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id)
    harness.until(run_id, "PAUSE")
    lose_log(harness)
    begin_and_die(harness, "startup.loaded")
    harness.start()
    now = harness.until(run_id, "PAUSE")
    assert now["want"] == "pause"
    harness.call("run.resume", run_id=run_id)
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_the_mark_never_promises_too_much(build: Build) -> None:
    """Killed after each COMMIT, before and after the mark: a whole registry is never taken for one behind."""
    harness = build()
    epoch = harness.call("daemon.hello")["epoch"]
    for _ in range(3):
        harness.ended(harness.submit("true", dedup="new"))
        mark = Path(f"{harness.state_dir / REGISTRY}-mark").read_text().split()
        assert mark == [epoch, f"{harness.call('daemon.health')['last_seq']:020d}"]
        harness.restart()
        assert harness.call("daemon.hello")["epoch"] == epoch and warnings(harness) == []
