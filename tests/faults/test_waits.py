"""Every wait for another process has a deadline, and until then the run shows the reason for the wait.

These tests stop shims with SIGSTOP; `shim_silence_s` is long, so that the deadline of the wait acts first.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.shim import cgroup
from tests.harness import processes
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

NEVER_S = 600.0
#: Pause and resume have much time, stop and kill have little.
WAITS = {
    "pause_ack_s": 20.0, "unkillable_s": 0.6, "grace_s": 0.2, "post_mortem_s": 0.0, "shim_silence_s": NEVER_S,
}  # fmt: skip
#: For a pause or resume that the shim never confirms; longer than a busy machine stalls.
SHORT_PAUSE = {**WAITS, "pause_ack_s": 4.0}


def frozen(harness: DaemonHarness, **params: Any) -> tuple[str, int]:
    """Return the id of a run that is frozen, and the pid of its shim."""
    run_id = harness.submit("sleep", "600", **params)
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="freeze")
    harness.until(run_id, "PAUSE")
    [shim] = harness.shims()
    return run_id, shim


def spare(harness: DaemonHarness) -> int:
    """Wait for the spare shim that the launcher forks in advance; return its pid."""

    def find() -> int | None:
        launcher = harness.launcher_pid()
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            with contextlib.suppress(OSError):  # the process has ended
                if Path(f"/proc/{child}/comm").read_text() == "mosaic-spare\n":
                    return int(child)
        return None

    pid = wait_until(find, lambda pid: pid is not None, "a spare shim")
    assert pid is not None
    return pid


def test_stop_of_a_paused_run_with_a_stopped_shim_ends_in_fault(build: Build) -> None:
    """If the shim of a paused run does not carry out a stop, the run shows the reason, then goes to FAULT and
    keeps its slot until the shim has ended."""
    harness = build(timeouts=WAITS)
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id, shim = frozen(harness)
    os.kill(shim, signal.SIGSTOP)
    answer = harness.call("run.stop", run_id=run_id)
    assert (answer["state"], "stop" in answer["reason"]) == ("PAUSE", True)
    assert harness.until(run_id, "FAULT")["cause"]["kind"] == "unkillable"
    assert harness.call("daemon.health")["cpus"]["free"] == 1
    os.kill(shim, signal.SIGKILL)
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"], harness.pids(run_id)) == ("failed", "unkillable", [])
    assert harness.call("daemon.health")["cpus"]["free"] == 2


def test_run_is_retried_if_its_shim_does_not_resume_it(build: Build) -> None:
    """If the shim does not resume a frozen run in time, the shim is taken for lost and the run is retried."""
    harness = build(timeouts=SHORT_PAUSE)
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id, shim = frozen(harness, retries=1)
    os.kill(shim, signal.SIGSTOP)
    answer = harness.call("run.resume", run_id=run_id)
    assert (answer["state"], "resume" in answer["reason"]) == ("PAUSE", True)
    run = harness.until(run_id, "FAULT")
    assert run["cause"]["kind"] == "shim_lost" and "resume" in run["cause"]["reason"]
    os.kill(shim, signal.SIGKILL)
    again = wait_until(lambda: harness.get(run_id), lambda run: run["attempt"] == 2, "another attempt")
    assert again["retries_used"] == 1
    harness.call("run.stop", run_id=run_id, grace_s=20)
    assert harness.ended(run_id)["outcome"] == "cancelled"


@pytest.mark.slow
def test_stop_of_a_paused_run_kills_its_silent_shim(build: Build) -> None:
    """A stop ends a paused run with a stopped shim: a silent shim is killed in PAUSE and FAULT too."""
    harness = build(timeouts={**WAITS, "shim_silence_s": 8.0})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK, Catalogue.SHIM_SILENT)
    run_id, shim = frozen(harness)
    os.kill(shim, signal.SIGSTOP)
    harness.call("run.stop", run_id=run_id)
    assert harness.ended(run_id, 60)["state"] == "TERM" and harness.pids(run_id) == []


def test_pause_that_is_not_confirmed_is_withdrawn(build: Build) -> None:
    """If the shim does not confirm a pause in time, the daemon withdraws the pause with a reason; the run
    continues, also after the shim has received both requests late."""
    harness = build(timeouts=SHORT_PAUSE)
    harness.allow(Catalogue.PAUSE_FAILED)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGSTOP)
    answer = harness.call("run.pause", run_id=run_id, mode="freeze")
    assert (answer["state"], "pause" in answer["reason"]) == ("EXEC", True)
    run = wait_until(lambda: harness.get(run_id), lambda run: run["want"] == "run", "the pause is withdrawn")
    assert (run["state"], run["reason"]) == ("EXEC", None)
    os.kill(shim, signal.SIGCONT)
    before = harness.stdout(run_id)
    wait_until(lambda: harness.stdout(run_id), lambda now: len(now) > len(before) + 1000, "more output")
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7
    withdrawn = next(event for event in harness.events(run_id) if event["kind"] == "resume_requested")
    assert withdrawn["who"] == "daemon" and "pause" in withdrawn["reason"]


def test_stop_before_the_shim_registers_cancels_the_run(build: Build) -> None:
    """If a run is stopped before its shim registers, the run ends as cancelled, the cause says that the
    worker never started, and the process of the shim is killed."""
    harness = build(timeouts={**WAITS, "handshake_s": 5.0})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    forked = spare(harness)
    os.kill(forked, signal.SIGSTOP)
    run_id = harness.submit("true")
    harness.until(run_id, "HSHK")
    answer = harness.call("run.stop", run_id=run_id, reason="enough")
    assert (answer["state"], "shim" in answer["reason"]) == ("HSHK", True)
    run = harness.ended(run_id)
    expected = {"kind": "by_user", "reason": "enough", "never_started": "handshake_timeout", "after_s": 5.0}
    assert run["outcome"] == "cancelled" and expected.items() <= run["cause"].items()
    assert "shim" in run["cause"]["error"]
    wait_until(lambda: forked_by(harness), lambda pids: forked not in pids, "the forked shim is killed")
    assert "registered" not in [event["kind"] for event in harness.events(run_id)]
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_stopped_teardown_shim_is_replaced(build: Build) -> None:
    """If the teardown shim of a lost shim is stopped, another teardown shim kills it and the process tree."""
    harness = build(timeouts=WAITS)
    harness.allow(Catalogue.SHIM_LOST, Catalogue.SHIM_STUCK, Catalogue.RUN_UNKILLABLE)
    run_id = harness.submit("sleep", "600")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    teardown_shim = spare(harness)
    os.kill(teardown_shim, signal.SIGSTOP)
    os.kill(shim, signal.SIGKILL)
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    assert harness.pids(run_id) == []
    is_killed = "the stopped teardown shim is killed"
    wait_until(lambda: forked_by(harness), lambda pids: teardown_shim not in pids, is_killed)


class PidsGroup:
    """A pids control group of version 1; while the group is closed, its processes cannot fork."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def add(self, pid: int) -> None:
        (self._group / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        (self._group / "pids.max").write_text("1")

    def open(self) -> None:
        (self._group / "pids.max").write_text("max")

    def try_remove(self) -> bool:
        """Move the processes to the parent group and remove the group; return whether it is removed."""
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # the process has ended
                (self._group.parent / "cgroup.procs").write_text(pid)
        return cgroup.remove(str(self._group))


@pytest.fixture
def pids_group() -> Iterator[PidsGroup]:
    own = cgroup.own_hierarchies()
    if "pids" not in own or not os.access(own["pids"], os.W_OK):
        pytest.skip("no writable pids control group of version 1 is available")
    path = Path(own["pids"]) / f"drill-{os.getpid()}"
    path.mkdir()
    group = PidsGroup(path)
    yield group
    group.open()
    wait_until(group.try_remove, bool, "the group is empty and removed")


def block_forks_of_launcher(harness: DaemonHarness, group: PidsGroup) -> None:
    """Move the launcher into the group, close the group and kill the spare shim: no new shim can start."""
    forked = spare(harness)
    group.add(harness.launcher_pid())
    group.close()
    os.kill(forked, signal.SIGKILL)
    wait_until(lambda: forked_by(harness), lambda pids: forked not in pids, "the spare shim is reaped")


def test_failed_fork_is_repeated_until_it_succeeds(build: Build, pids_group: PidsGroup) -> None:
    """While the launcher cannot fork, the run waits and shows the error and the number of tries; it starts
    when a fork succeeds. A run that is stopped meanwhile is cancelled immediately."""
    harness = build(timeouts={"handshake_s": 60.0})
    harness.allow(Catalogue.LAUNCH_DELAYED, Catalogue.LAUNCH_FAILED)
    harness.ended(harness.submit("true"))
    block_forks_of_launcher(harness, pids_group)
    run_id = harness.submit("sh", "-c", "exit 3")
    waiting = wait_until(
        lambda: harness.get(run_id), lambda run: "times" in str(run["reason"]), "the number of tries"
    )
    assert waiting["state"] == "HSHK" and "Resource temporarily unavailable" in waiting["reason"]
    stopped = harness.submit("true")
    harness.until(stopped, "HSHK")
    harness.call("run.stop", run_id=stopped)
    end = harness.ended(stopped)
    assert (end["outcome"], end["cause"]["never_started"]) == ("cancelled", "spawn_failed")
    pids_group.open()
    run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"], run["reason"]) == ("failed", 3, None)


def test_fork_that_fails_until_the_handshake_timeout_fails_the_run(
    build: Build, pids_group: PidsGroup
) -> None:
    """If no fork succeeds before the handshake timeout, the run fails; the cause has the error and the number
    of tries, and a run with retries is retried."""
    harness = build(timeouts={"handshake_s": 1.0})
    harness.allow(Catalogue.LAUNCH_DELAYED, Catalogue.LAUNCH_FAILED)
    harness.ended(harness.submit("true"))
    block_forks_of_launcher(harness, pids_group)
    run_id = harness.submit("true")
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "handshake_timeout")
    assert "Resource temporarily unavailable" in run["cause"]["error"] and "tried" in run["cause"]["error"]
    retried = harness.submit("true", retries=100)
    wait_until(lambda: harness.get(retried), lambda run: run["retries_used"] > 0, "a retry")
    pids_group.open()
    assert harness.ended(retried)["outcome"] == "succeeded"


def forked_by(harness: DaemonHarness) -> list[int]:
    return processes.children(harness.launcher_pid())
