"""A record that is set aside ends no process: what the run held is nobody's until nothing of it lives."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicd.protocol.rundir import temporary_path
from mosaicd.rundirs.directories import held_attempts
from tests.daemon.house import House, eventually
from tests.store.test_quarantine import SPOILT, spoil

Build = Callable[..., House]


def lose(house: House, run_id: str, damage: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Damage the record of a live run while there is no daemon; the next one sets it aside."""
    house.allowed_warnings += ["set aside"]
    house.kill()
    meanwhile()
    spoil(house.state_dir / "registry.sqlite3", SPOILT[damage], id=run_id)
    house.run_ids.discard(run_id)
    house.start()


def withheld(house: House) -> list[str]:
    return [said for said in house.call("daemon.health")["warnings"] if "something of it" in said]


def is_told(house: House, run_id: str, words: str) -> bool:
    return any(run_id in line and words in line for line in house.log.read_text().splitlines())


@pytest.mark.parametrize("damage", ["body is no JSON", "event gone"])
def test_no_slot_of_a_run_that_was_set_aside_is_given_away(build: Build, damage: str) -> None:
    """Its GPU and CPU stay its own while its worker lives, and it is said where people look: health, `why`,
    the reason, the journal.  Once the worker has ended, the next run has them."""
    house = build(gpus={"static": 1}, cpus={"slots": 3})
    gate = house.home / "gate"
    lost = house.program("ticker", str(gate), gpus=1)
    pid = house.until(lost, "EXEC")["pid"]
    lose(house, lost, damage)
    second = house.submit("true", gpus=1)
    health = eventually(lambda: house.call("daemon.health"), lambda told: str(pid) in str(told), "its pid")
    assert (health["cpus"]["free"], health["gpus"]["free"]) == (2, 0)
    small = house.submit("true", priority=-1)
    assert house.ended(small)["outcome"] == "succeeded", "what is not withheld is handed out"
    waiting = house.get(second)
    assert (waiting["state"], waiting["reason"]) == ("INIT", "needs 1 GPU, 0 of 1 free (1 withheld)")
    told = house.ctl("why", second).stdout
    assert lost in told and "GPU slot 0" in told and str(pid) in told
    assert is_told(house, lost, "nobody is given its 1 CPU and GPU slot 0")
    assert lost in house.ctl("health").stdout

    house.restart()
    assert withheld(house), "the next daemon asks anew"
    assert (house.get(second)["state"], house.pids(lost)) == ("INIT", [pid])
    gate.touch()
    assert house.ended(second)["slots"] == [] and house.pids(lost) == []
    assert house.get(second)["outcome"] == "succeeded"
    assert withheld(house) == []
    assert is_told(house, lost, "what it held is free")


def test_a_helper_that_outlives_its_shim_keeps_the_slot(build: Build) -> None:
    """No shim, no worker, but a process that the worker left: the launcher sees it: the slot is not free."""
    house = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = house.submit("sh", "-c", "setsid sleep 600 & exec sleep 600", gpus=1)
    worker = house.until(lost, "EXEC")["pid"]
    eventually(lambda: house.pids(lost), lambda pids: len(pids) == 2, "the helper is there")

    def end_all_but_the_helper() -> None:
        for pid in (*house.shims(), worker):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: house.pids(lost), lambda pids: len(pids) == 1, "the helper alone")

    lose(house, lost, "last event gone", end_all_but_the_helper)
    second = house.submit("true", gpus=1)
    [helper] = house.pids(lost)
    eventually(lambda: withheld(house), lambda said: str(helper) in str(said), "the helper is named")
    assert house.get(second)["state"] == "INIT"
    os.kill(helper, signal.SIGKILL)
    assert house.ended(second)["outcome"] == "succeeded"

    temporary = Path(temporary_path(lost, 1))
    assert temporary.exists(), "nobody was left who would have removed it"
    house.restart()
    eventually(temporary.exists, lambda is_there: not is_there, "a daemon that starts removes it")


def test_a_shim_that_stands_still_keeps_the_slot(build: Build) -> None:
    """Its worker has ended, its tree is empty; but it holds the attempt, and who holds it may still act."""
    house = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = house.submit("sleep", "600", gpus=1)
    worker = house.until(lost, "EXEC")["pid"]
    [shim] = house.shims()

    def stop_the_shim() -> None:
        os.kill(shim, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)

    lose(house, lost, "unknown want", stop_the_shim)
    second = house.submit("true", gpus=1)
    eventually(lambda: is_told(house, lost, "may live"), bool, "it was looked at")
    assert house.get(second)["state"] == "INIT" and withheld(house)
    os.kill(shim, signal.SIGCONT)
    assert house.ended(second)["outcome"] == "succeeded"


def test_what_was_set_aside_and_has_ended_keeps_nothing(build: Build) -> None:
    """A run that ended while there was no daemon, or never began, withholds nothing and says nothing."""
    house = build(gpus={"static": 1})
    lost = house.submit("sleep", "600", gpus=1)
    worker = house.until(lost, "EXEC")["pid"]

    def end_it() -> None:
        os.kill(worker, signal.SIGKILL)
        directory = house.state_dir / "runs" / lost
        eventually(lambda: held_attempts(directory), lambda held: not held, "its shim leaves")

    lose(house, lost, "row ahead of events", end_it)
    assert house.ended(house.submit("true", gpus=1))["outcome"] == "succeeded"
    assert withheld(house) == [] and not is_told(house, lost, "nobody is given")
