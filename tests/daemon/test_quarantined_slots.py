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
from tests.store.test_quarantine import DAMAGES, damage_file


def quarantine(
    harness: DaemonHarness, run_id: str, damage: str, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Damage the record of a live run while the daemon is down; the next daemon quarantines it."""
    harness.allow(Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    harness.kill()
    meanwhile()
    damage_file(harness.state_dir / "registry.sqlite3", DAMAGES[damage], id=run_id)
    harness.run_ids.discard(run_id)
    harness.start()


def reserved_warnings(harness: DaemonHarness) -> list[str]:
    """Return the warnings of daemon.health about slots that stay reserved."""
    warnings = harness.call("daemon.health")["warnings"]
    return [warning for warning in warnings if Catalogue.SLOTS_WITHHELD.code in warning]


@pytest.mark.parametrize("damage", ["body is no JSON", "event missing"])
def test_slots_of_a_quarantined_live_run_stay_reserved(build: Build, damage: str) -> None:
    """GPU and CPU slots of a quarantined run stay reserved while its worker is alive; health, `why`, the
    reason and the log name it.

    When the worker has ended, the next run gets the slots.
    """
    harness = build(gpus={"static": 1}, cpus={"slots": 3})
    gate = harness.home / "gate"
    lost = harness.program("ticker", str(gate), gpus=1)
    pid = harness.until(lost, "EXEC")["pid"]
    quarantine(harness, lost, damage)
    second = harness.submit("true", gpus=1)
    health = wait_until(lambda: harness.call("daemon.health"), lambda seen: str(pid) in str(seen), "its pid")
    assert (health["cpus"]["free"], health["gpus"]["free"]) == (2, 0)
    small = harness.submit("true", priority=-1)
    assert harness.ended(small)["outcome"] == "succeeded", "the other slots are granted"
    waiting = harness.get(second)
    assert (waiting["state"], waiting["reason"]) == ("INIT", "needs 1 GPU, 0 of 1 free (1 reserved)")
    explanation = harness.ctl("why", second).stdout
    assert lost in explanation and "GPU slot 0" in explanation and str(pid) in explanation
    assert harness.logged(Catalogue.SLOTS_WITHHELD, lost, "slots=[0] cpus=1")
    assert lost in harness.ctl("health").stdout

    harness.restart()
    assert reserved_warnings(harness), "the next daemon checks again"
    assert (harness.get(second)["state"], harness.pids(lost)) == ("INIT", [pid])
    gate.touch()
    assert harness.ended(second)["slots"] == [] and harness.pids(lost) == []
    assert harness.get(second)["outcome"] == "succeeded"
    assert reserved_warnings(harness) == []
    assert harness.logged(Catalogue.SLOTS_GIVEN_BACK, lost)


def test_a_helper_that_outlives_its_shim_keeps_the_slot(build: Build) -> None:
    """If shim and worker have ended and a helper process lives, the slot stays reserved."""
    harness = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = harness.submit("sh", "-c", "setsid sleep 600 & exec sleep 600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]
    wait_until(lambda: harness.pids(lost), lambda pids: len(pids) == 2, "the helper has started")

    def end_all_but_the_helper() -> None:
        for pid in (*harness.shims(), worker):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: harness.pids(lost), lambda pids: len(pids) == 1, "the helper alone")

    quarantine(harness, lost, "last event missing", end_all_but_the_helper)
    second = harness.submit("true", gpus=1)
    [helper] = harness.pids(lost)
    wait_until(
        lambda: reserved_warnings(harness), lambda seen: str(helper) in str(seen), "a warning names it"
    )
    assert harness.get(second)["state"] == "INIT"
    os.kill(helper, signal.SIGKILL)
    assert harness.ended(second)["outcome"] == "succeeded"

    temporary = Path(temporary_path(lost, 1))
    assert temporary.exists(), "no shim lives to remove it"
    harness.restart()
    wait_until(temporary.exists, lambda exists: not exists, "the next daemon removes it")


def test_a_hung_shim_keeps_the_slot(build: Build) -> None:
    """If the worker has ended and its shim hangs, the slot stays reserved, because the shim holds the lock of
    the attempt."""
    harness = build(gpus={"static": 1}, cpus={"slots": 4})
    lost = harness.submit("sleep", "600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]
    [shim] = harness.shims()

    def stop_the_shim() -> None:
        os.kill(shim, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)

    quarantine(harness, lost, "unknown want", stop_the_shim)
    second = harness.submit("true", gpus=1)
    wait_until(lambda: harness.logged(Catalogue.SLOTS_WITHHELD, lost), bool, "the slots are reserved")
    assert harness.get(second)["state"] == "INIT" and reserved_warnings(harness)
    os.kill(shim, signal.SIGCONT)
    assert harness.ended(second)["outcome"] == "succeeded"


def test_a_quarantined_ended_run_keeps_no_slot(build: Build) -> None:
    """A quarantined run without a live process reserves no slot and causes no warning about slots."""
    harness = build(gpus={"static": 1})
    lost = harness.submit("sleep", "600", gpus=1)
    worker = harness.until(lost, "EXEC")["pid"]

    def end_it() -> None:
        os.kill(worker, signal.SIGKILL)
        directory = harness.state_dir / "runs" / lost
        wait_until(lambda: held_attempts(directory), lambda held: not held, "its shim exits")

    quarantine(harness, lost, "row ahead of events", end_it)
    assert harness.ended(harness.submit("true", gpus=1))["outcome"] == "succeeded"
    assert reserved_warnings(harness) == [] and not harness.logged(Catalogue.SLOTS_WITHHELD, lost)
