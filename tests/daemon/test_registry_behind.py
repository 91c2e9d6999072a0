"""A registry that opens cleanly and is behind its run directories: no run is lost, none comes back that
should not, and no two share a slot, wherever a crash falls meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mosaicd import crash_points
from mosaicd.protocol.errors import Conflict
from mosaicd.rundirs.directories import held_attempts
from tests.daemon.house import ROOT, House, eventually
from tests.daemon.lost_log import (
    BEHIND,
    REGISTRY,
    begin_and_die,
    begin_log,
    lose_log,
    one_and_slowly,
    warnings,
)  # fmt: skip
from tests.daemon.test_registry_care import EXACT, allow, garble_header, links

Build = Callable[..., House]


def test_commits_that_are_lost_cost_no_run(build: Build) -> None:
    """The log is gone: who lives goes on in its slots, who ended has its exact end, who waited waits; it is
    said, cursors from before are a conflict, and its key is no other run's."""
    house = build(cpus={"slots": 2}, gpus={"static": 1})
    begin_log(house)
    failed = house.ended(house.submit("sh", "-c", "exit 3", key="one"))
    stopped = house.submit("sleep", "60")
    house.until(stopped, "EXEC")
    house.call("run.stop", run_id=stopped, grace_s=0)
    over = house.ended(stopped)
    gate = house.home / "gate"
    live = house.program("ticker", str(gate), gpus=1)
    before = house.until(live, "EXEC")
    waiting, withdrawn = house.submit("echo", "late", gpus=1), house.submit("true", hold=True)
    house.call("run.stop", run_id=withdrawn)
    house.put_away(failed["run_id"], stopped, withdrawn)
    old = house.call("daemon.hello")
    lose_log(house)
    house.start()

    hello = house.call("daemon.hello")
    assert hello["epoch"] != old["epoch"]
    with pytest.raises(Conflict):
        house.call("run.watch", since=old["last_seq"], epoch=old["epoch"])
    [said] = warnings(house)
    assert "2 ended, 1 live and 1 waiting" not in said and "3 ended, 1 live and 1 waiting" in said
    for told in (failed, over):
        now = house.get(told["run_id"])
        assert {name: now[name] for name in EXACT} == {name: told[name] for name in EXACT}
    assert house.get(withdrawn)["outcome"] == "cancelled"
    now = house.until(live, "EXEC")
    assert (now["pid"], now["slots"], now["attempt"]) == (before["pid"], before["slots"], 1)
    assert house.call("daemon.health")["gpus"]["free"] == 0
    assert house.get(waiting)["state"] == "INIT"
    again = house.call("run.submit", command=["sh", "-c", "exit 3"], cwd=str(house.home), key="one")
    assert (again["run_id"], again["duplicate"]) == (failed["run_id"], True)
    gate.touch()
    assert house.ended(live)["exit_code"] == 7
    assert house.ended(waiting)["outcome"] == "succeeded"
    house.restart()
    assert warnings(house) == [said] and house.call("daemon.hello")["epoch"] == hello["epoch"]
    assert {event["who"] for event in house.events(failed["run_id"])[1:]} == {"rebuild"}


def test_a_cut_log_is_noticed_by_its_mark(build: Build) -> None:
    """Where no directory tells of it, the mark does: a request that is lost is said, and the epoch is new."""
    house = build()
    run_id = house.submit("true", hold=True)
    begin_log(house)
    house.call("run.set", run_id=run_id, priority=5)
    old = house.call("daemon.hello")
    lose_log(house)
    house.start()
    assert house.call("daemon.hello")["epoch"] != old["epoch"]
    [said] = warnings(house)
    assert "its newest 1 events are gone" in said
    assert house.get(run_id)["priority"] == 0


def test_a_row_that_is_behind_goes_on_from_its_directory(build: Build) -> None:
    """Its attempt was lost, its slot another's since: the other lives on there, and it waits for its next."""
    house = build(cpus={"slots": 4}, gpus={"static": 1})
    house.allowed_warnings.append("is gone")
    gate = house.home / "gate"
    first = house.program("ticker", str(gate), gpus=1, retries=2)
    house.until(first, "EXEC")
    tried = house.program("ticker", str(gate), retries=2)
    house.until(tried, "EXEC")
    late = house.submit("sh", "-c", "exit 5", hold=True)
    begin_log(house)
    second = house.program("ticker", str(gate), gpus=1, priority=100)
    house.call("run.release", run_id=late)
    ended = house.ended(late)
    house.put_away(late)
    for run_id in (tried, first):
        [pid] = [pid for pid in house.shims() if str(house.attempt(run_id)) in links(pid)]
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: house.get(tried), lambda run: (run["attempt"], run["state"]) == (2, "EXEC"), "again")
    before = house.until(second, "EXEC")
    eventually(lambda: house.get(first)["state"], lambda state: state == "INIT", "the first waits")
    held = partial(held_attempts, house.state_dir / "runs" / first)
    eventually(held, lambda attempts: not attempts, "what ended its tree leaves")
    lose_log(house)
    house.start()

    now = house.until(second, "EXEC")
    assert (now["pid"], now["slots"]) == (before["pid"], [0])
    waits = house.get(first)
    assert (waits["state"], waits["attempt"], waits["retries_used"]) == ("INIT", 1, 1)
    goes_on = house.until(tried, "EXEC")
    assert (goes_on["attempt"], goes_on["retries_used"]) == (2, 1)
    there = house.get(late)
    assert {name: there[name] for name in EXACT} == {name: ended[name] for name in EXACT}
    [said] = warnings(house)
    assert "3 that it knew less of" in said and "1 live" in said
    gate.touch()
    assert [house.ended(run_id)["exit_code"] for run_id in (second, first, tried)] == [7, 7, 7]
    assert house.get(first)["attempt"] == 2


def test_two_runs_never_share_a_slot_afterwards(build: Build) -> None:
    """A run that nobody knew of while its slot was handed out: said aloud, not taken up, and its slot is
    nobody's until nothing of it lives, also after the other has ended."""
    house = build(gpus={"static": 1})
    gates = [house.home / "first", house.home / "second"]
    begin_log(house)
    first = house.program("ticker", str(gates[0]), gpus=1)
    house.until(first, "EXEC")
    lose_log(house)
    hidden = house.home / "hidden"
    shutil.move(house.state_dir / "runs" / first, hidden)
    house.start()
    second = house.program("ticker", str(gates[1]), gpus=1)
    assert house.until(second, "EXEC")["slots"] == [0]
    house.kill()
    shutil.move(hidden, house.state_dir / "runs" / first)
    house.allowed_warnings += ["is not taken up", "is set aside"]
    house.start()

    health = house.call("daemon.health")
    [aside] = health["quarantine"]
    assert aside["run_id"] == first and f"run {second} holds the same slots" in aside["why"]
    assert any(first in said for said in warnings(house))
    assert house.until(second, "EXEC")["slots"] == [0]
    third = house.submit("true", gpus=1)
    gates[1].touch()
    assert house.ended(second)["exit_code"] == 7
    assert house.get(third)["state"] == "INIT" and house.call("daemon.health")["gpus"]["free"] == 0
    gates[0].touch()
    assert house.ended(third)["outcome"] == "succeeded"
    house.run_ids.discard(first)


def test_a_run_at_work_whose_key_is_anothers_keeps_its_slot(build: Build) -> None:
    """Two runs that nobody knew have one key: the second is not taken up, said aloud, and what it uses is
    nobody's until nothing of it lives."""
    house = build(gpus={"static": 1})
    gate, hidden = house.home / "gate", house.home / "hidden"
    begin_log(house)
    first = house.submit("true", key="once")
    house.ended(first)
    house.put_away(first)
    lose_log(house)
    shutil.move(house.state_dir / "runs" / first, hidden)
    house.start()
    second = house.program("ticker", str(gate), gpus=1, key="once")
    house.until(second, "EXEC")
    lose_log(house)
    shutil.move(hidden, house.state_dir / "runs" / first)
    house.allowed_warnings += ["is not taken up", "is set aside"]
    house.start()

    assert house.get(first)["outcome"] == "succeeded"
    health = house.call("daemon.health")
    [aside] = health["quarantine"]
    assert aside["run_id"] == second and f"run {first} has the same key" in aside["why"]
    assert health["gpus"]["free"] == 0 and any(second in said for said in warnings(house))
    third = house.submit("true", gpus=1)
    assert house.get(third)["state"] == "INIT"
    gate.touch()
    assert house.ended(third)["outcome"] == "succeeded"
    house.run_ids.discard(second)


MENDING = one_and_slowly("adopt.after_commit", "adopt.before_commit", "startup.loaded", "startup.reconciled")
REBUILDING = one_and_slowly("restore.set_aside", "rebuild.written", "restore.decided", "startup.loaded")


@pytest.mark.parametrize("point", MENDING)
def test_a_crash_while_it_is_mended_changes_nothing(build: Build, point: str) -> None:
    """Killed while what is behind is mended: the next start comes to the same, and says so."""
    killed_while_mended(build(cpus={"slots": 1}), point, is_damaged=False)


@pytest.mark.parametrize("point", REBUILDING)
def test_a_crash_while_it_is_made_again_changes_nothing(build: Build, point: str) -> None:
    """Killed while a damaged registry is made again: the next start comes to the same, and says so."""
    killed_while_mended(build(cpus={"slots": 1}), point, is_damaged=True)


def killed_while_mended(house: House, point: str, *, is_damaged: bool) -> None:
    """One run ended, one lives, one waits; the registry breaks, and the daemon dies at the point."""
    allow(house)
    begin_log(house)
    failed = house.ended(house.submit("sh", "-c", "exit 3"))
    house.put_away(failed["run_id"])
    gate = house.home / "gate"
    live = house.program("ticker", str(gate))
    before = house.until(live, "EXEC")
    waiting = house.submit("true")
    old = house.call("daemon.hello")
    lose_log(house)
    if is_damaged:
        garble_header(house.state_dir / REGISTRY)
    begin_and_die(house, point)
    house.start()

    health = house.call("daemon.health")
    assert health["epoch"] != old["epoch"]
    [said] = health["warnings"]
    assert "1 ended, 1 live and 1 waiting" in said
    now = house.get(failed["run_id"])
    assert {name: now[name] for name in EXACT} == {name: failed[name] for name in EXACT}
    now = house.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert house.ended(live)["exit_code"] == 7 and house.ended(waiting)["outcome"] == "succeeded"
    assert not list(house.state_dir.glob("*.restored*"))
    house.restart()
    assert house.call("daemon.health")["warnings"] == [said]


@pytest.mark.parametrize("point", one_and_slowly("restore.set_aside", "restore.decided"))
def test_a_restore_that_was_killed_is_finished_by_the_next_start(build: Build, point: str) -> None:
    """An old copy, a run at work that it does not know, and a kill in the middle: the same as without it."""
    house = build()
    house.allowed_warnings.append(BEHIND)
    copy = house.home / "copy"
    house.call("daemon.backup", path=str(copy))
    gate = house.home / "gate"
    live = house.program("ticker", str(gate))
    before = house.until(live, "EXEC")
    ended = house.ended(house.submit("sh", "-c", "exit 3"))
    house.put_away(ended["run_id"])
    house.kill()
    place = ["--state-dir", str(house.state_dir), "--socket", str(house.socket)]
    killed = subprocess.run(
        [sys.executable, "-m", "mosaicd", *place, "--restore", str(copy)], check=False, timeout=60,
        env={"PYTHONPATH": str(ROOT), "HOME": str(house.home), crash_points.VARIABLE: point},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    house.start()
    now = house.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    now = house.get(ended["run_id"])
    assert {name: now[name] for name in EXACT} == {name: ended[name] for name in EXACT}
    assert len(list((house.state_dir / "set-aside").iterdir())) == 1
    gate.touch()
    assert house.ended(live)["exit_code"] == 7


def test_a_run_stays_frozen(build: Build) -> None:
    """Frozen by a request that is lost: it is not thawed behind its owner's back, nor after one more kill."""
    house = build()
    begin_log(house)
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    house.until(run_id, "EXEC")
    house.call("run.pause", run_id=run_id)
    house.until(run_id, "PAUSE")
    lose_log(house)
    begin_and_die(house, "startup.loaded")
    house.start()
    now = house.until(run_id, "PAUSE")
    assert now["want"] == "pause"
    house.call("run.resume", run_id=run_id)
    gate.touch()
    assert house.ended(run_id)["exit_code"] == 7


def test_the_mark_never_promises_too_much(build: Build) -> None:
    """Killed after each COMMIT, before and after the mark: a whole registry is never taken for one behind."""
    house = build()
    epoch = house.call("daemon.hello")["epoch"]
    for _ in range(3):
        house.ended(house.submit("true", dedup="new"))
        mark = Path(f"{house.state_dir / REGISTRY}-mark").read_text().split()
        assert mark == [epoch, f"{house.call('daemon.health')['last_seq']:020d}"]
        house.restart()
        assert house.call("daemon.hello")["epoch"] == epoch and warnings(house) == []
