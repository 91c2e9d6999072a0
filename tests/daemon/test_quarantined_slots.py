"""A quarantined record ends no process: its slots stay reserved until no process of the run is alive."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.rundir import temporary_path
from mosaicd.rundirs.attempt_files import held_attempts
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until
from tests.store.test_quarantine import SPOILT, spoil


def lose(
    harness: DaemonHarness, run_id: str, damage: str, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Damage the record of a live run while there is no daemon; the next one sets it aside."""
    harness.allow(Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    harness.kill()
    meanwhile()
    spoil(harness.state_dir / "registry.sqlite3", SPOILT[damage], id=run_id)
    harness.run_ids.discard(run_id)
    harness.start()


def withheld(harness: DaemonHarness) -> list[str]:
    """The warnings of daemon.health about slots that stay reserved."""
    warnings = harness.call("daemon.health")["warnings"]
    return [warning for warning in warnings if Catalogue.SLOTS_WITHHELD.code in warning]


@pytest.mark.parametrize("damage", ["body is no JSON", "event missing"])
def test_no_slot_of_a_run_that_was_set_aside_is_given_away(build: Build, damage: str) -> None:
    """Its GPU and CPU stay its own while its worker lives, and it is said where people look: health, `why`,
    the reason, the journal.  Once the worker has ended, the next run has them."""
    harness = build(gpus={"static": 1}, cpus={"slots": 3})
    gate = harness.home / "gate"
    lost = harness.program("ticker", str(gate), gpus=1)
    pid = harness.until(lost, "EXEC")["pid"]
    lose(harness, lost, damage)
    second = harness.submit("true", gpus=1)
    health = wait_until(lambda: harness.call("daemon.health"), lambda told: str(pid) in str(told), "its pid")
    assert (health["cpus"]["free"], health["gpus"]["free"]) == (2, 0)
    small = harness.submit("true", priority=-1)
    assert harness.ended(small)["outcome"] == "succeeded", "what is not withheld is handed out"
    waiting = harness.get(second)
    assert (waiting["state"], waiting["reason"]) == ("INIT", "needs 1 GPU, 0 of 1 free (1 reserved)")
    told = harness.ctl("why", second).stdout
    assert lost in told and "GPU slot 0" in told and str(pid) in told
    assert harness.logged(Catalogue.SLOTS_WITHHELD, lost, "slots=[0] cpus=1")
    assert lost in harness.ctl("health").stdout

    harness.restart()
    assert withheld(harness), "the next daemon asks anew"
    assert (harness.get(second)["state"], harness.pids(lost)) == ("INIT", [pid])
    gate.touch()
    assert harness.ended(second)["slots"] == [] and harness.pids(lost) == []
    assert harness.get(second)["outcome"] == "succeeded"
    assert withheld(harness) == []
    assert harness.logged(Catalogue.SLOTS_GIVEN_BACK, lost)


def test_a_helper_that_outlives_its_shim_keeps_the_slot(build: Build) -> None:
    """No shim, no worker, but a process that the worker left: the launcher sees it: the slot is not free."""
    harness = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = harness.submit("sh", "-c", "setsid sleep 600 & exec sleep 600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]
    wait_until(lambda: harness.pids(lost), lambda pids: len(pids) == 2, "the helper is there")

    def end_all_but_the_helper() -> None:
        for pid in (*harness.shims(), worker):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: harness.pids(lost), lambda pids: len(pids) == 1, "the helper alone")

    lose(harness, lost, "last event missing", end_all_but_the_helper)
    second = harness.submit("true", gpus=1)
    [helper] = harness.pids(lost)
    wait_until(lambda: withheld(harness), lambda said: str(helper) in str(said), "the helper is named")
    assert harness.get(second)["state"] == "INIT"
    os.kill(helper, signal.SIGKILL)
    assert harness.ended(second)["outcome"] == "succeeded"

    temporary = Path(temporary_path(lost, 1))
    assert temporary.exists(), "no shim was left to remove it"
    harness.restart()
    wait_until(temporary.exists, lambda is_there: not is_there, "a daemon that starts removes it")


def test_a_shim_that_stands_still_keeps_the_slot(build: Build) -> None:
    """Its worker has ended, its tree is empty; but it holds the attempt, and who holds it may still act."""
    harness = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = harness.submit("sleep", "600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]
    [shim] = harness.shims()

    def stop_the_shim() -> None:
        os.kill(shim, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)

    lose(harness, lost, "unknown want", stop_the_shim)
    second = harness.submit("true", gpus=1)
    wait_until(lambda: harness.logged(Catalogue.SLOTS_WITHHELD, lost), bool, "it was looked at")
    assert harness.get(second)["state"] == "INIT" and withheld(harness)
    os.kill(shim, signal.SIGCONT)
    assert harness.ended(second)["outcome"] == "succeeded"


def test_what_was_set_aside_and_has_ended_keeps_nothing(build: Build) -> None:
    """A run that ended while there was no daemon, or never began, withholds nothing and says nothing."""
    harness = build(gpus={"static": 1})
    lost = harness.submit("sleep", "600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]

    def end_it() -> None:
        os.kill(worker, signal.SIGKILL)
        directory = harness.state_dir / "runs" / lost
        wait_until(lambda: held_attempts(directory), lambda held: not held, "its shim leaves")

    lose(harness, lost, "row ahead of events", end_it)
    assert harness.ended(harness.submit("true", gpus=1))["outcome"] == "succeeded"
    assert withheld(harness) == [] and not harness.logged(Catalogue.SLOTS_WITHHELD, lost)
