"""A process that the daemon waits for may never answer: every wait has an end, and a reason until then.

Shims are stopped here with shim_silence_s out of the way, so that the wait's own deadline has to act.
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
#: Long for a pause and a resume, short for an end.
WAITS = {
    "pause_ack_s": 20.0, "unkillable_s": 0.6, "grace_s": 0.2, "post_mortem_s": 0.0, "shim_silence_s": NEVER_S,
}  # fmt: skip
#: Where it is the pause, or the resume, that does not come about: longer than a machine stalls.
ANSWERS = {**WAITS, "pause_ack_s": 4.0}


def frozen(harness: DaemonHarness, **params: Any) -> tuple[str, int]:
    """A run that was paused by freezing it, and its shim."""
    run_id = harness.submit("sleep", "600", **params)
    harness.until(run_id, "EXEC")
    harness.call("run.pause", run_id=run_id, mode="freeze")
    harness.until(run_id, "PAUSE")
    [shim] = harness.shims()
    return run_id, shim


def spare(harness: DaemonHarness) -> int:
    """The shim that the launcher has forked ahead, as soon as it is one."""

    def find() -> int | None:
        launcher = harness.launcher_pid()
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                if Path(f"/proc/{child}/comm").read_text() == "mosaic-spare\n":
                    return int(child)
        return None

    found = wait_until(find, lambda pid: pid is not None, "a spare shim")
    assert found is not None
    return found


def test_a_stop_of_a_paused_run_whose_shim_stands_still(build: Build) -> None:
    """PAUSE and stop is a wait as any other: said as the reason, then FAULT, with its slot, until its shim
    acts or is gone."""
    harness = build(timeouts=WAITS)
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id, shim = frozen(harness)
    os.kill(shim, signal.SIGSTOP)
    asked = harness.call("run.stop", run_id=run_id)
    assert (asked["state"], "stop" in asked["reason"]) == ("PAUSE", True)
    assert harness.until(run_id, "FAULT")["cause"]["kind"] == "unkillable"
    assert harness.call("daemon.health")["cpus"]["free"] == 1
    os.kill(shim, signal.SIGKILL)
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"], harness.pids(run_id)) == ("failed", "unkillable", [])
    assert harness.call("daemon.health")["cpus"]["free"] == 2


def test_a_resume_that_its_shim_does_not_carry_out(build: Build) -> None:
    """A frozen run that its shim does not resume is not left frozen: the shim counts as lost, the run is
    retried."""
    harness = build(timeouts=ANSWERS)
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id, shim = frozen(harness, retries=1)
    os.kill(shim, signal.SIGSTOP)
    asked = harness.call("run.resume", run_id=run_id)
    assert (asked["state"], "resume" in asked["reason"]) == ("PAUSE", True)
    run = harness.until(run_id, "FAULT")
    assert run["cause"]["kind"] == "shim_lost" and "resume" in run["cause"]["reason"]
    os.kill(shim, signal.SIGKILL)
    again = wait_until(lambda: harness.get(run_id), lambda run: run["attempt"] == 2, "another attempt")
    assert again["retries_used"] == 1
    harness.call("run.stop", run_id=run_id, grace_s=20)
    assert harness.ended(run_id)["outcome"] == "cancelled"


@pytest.mark.slow
def test_nobody_has_to_help(build: Build) -> None:
    """The same without a hand from outside: a silent shim is given up, in PAUSE and FAULT too."""
    harness = build(timeouts={**WAITS, "shim_silence_s": 8.0})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK, Catalogue.SHIM_SILENT)
    run_id, shim = frozen(harness)
    os.kill(shim, signal.SIGSTOP)
    harness.call("run.stop", run_id=run_id)
    assert harness.ended(run_id, 60)["state"] == "TERM" and harness.pids(run_id) == []


def test_a_pause_that_does_not_come_about_is_given_up(build: Build) -> None:
    """A run is not broken because it could not be paused: the wish is given up, said with the reason, and the
    run works on; the shim that hears both late ends up with a run that works."""
    harness = build(timeouts=ANSWERS)
    harness.allow(Catalogue.PAUSE_FAILED)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGSTOP)
    asked = harness.call("run.pause", run_id=run_id, mode="freeze")
    assert (asked["state"], "pause" in asked["reason"]) == ("EXEC", True)
    run = wait_until(lambda: harness.get(run_id), lambda run: run["want"] == "run", "it is given up")
    assert (run["state"], run["reason"]) == ("EXEC", None)
    os.kill(shim, signal.SIGCONT)
    before = harness.stdout(run_id)
    wait_until(lambda: harness.stdout(run_id), lambda now: len(now) > len(before) + 1000, "it works")
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7
    given_up = next(event for event in harness.events(run_id) if event["kind"] == "resume_requested")
    assert given_up["who"] == "daemon" and "pause" in given_up["reason"]


def test_a_stop_before_the_shim_comes_is_a_cancel(build: Build) -> None:
    """Its shim was forked and never came: what its user stopped before anything started is cancelled, with
    the evidence, and the process that should have become its shim is ended."""
    harness = build(timeouts={**WAITS, "handshake_s": 5.0})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    forked = spare(harness)
    os.kill(forked, signal.SIGSTOP)
    run_id = harness.submit("true")
    harness.until(run_id, "HSHK")
    asked = harness.call("run.stop", run_id=run_id, reason="enough")
    assert (asked["state"], "shim" in asked["reason"]) == ("HSHK", True)
    run = harness.ended(run_id)
    expected = {"kind": "by_user", "reason": "enough", "never_started": "handshake_timeout", "after_s": 5.0}
    assert run["outcome"] == "cancelled" and expected.items() <= run["cause"].items()
    assert "shim" in run["cause"]["error"]
    wait_until(
        lambda: forked_by(harness),
        lambda pids: forked not in pids,
        "what was forked is ended",
    )
    assert "registered" not in [event["kind"] for event in harness.events(run_id)]
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_a_teardown_shim_that_stands_still_is_replaced(build: Build) -> None:
    """Who is to end a lost shim's tree may stand still itself: another one ends it, and then the tree."""
    harness = build(timeouts=WAITS)
    harness.allow(Catalogue.SHIM_LOST, Catalogue.SHIM_STUCK, Catalogue.RUN_UNKILLABLE)
    run_id = harness.submit("sleep", "600")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    next_one = spare(harness)
    os.kill(next_one, signal.SIGSTOP)
    os.kill(shim, signal.SIGKILL)
    assert harness.ended(run_id)["cause"]["kind"] == "shim_lost"
    assert harness.pids(run_id) == []
    wait_until(
        lambda: forked_by(harness),
        lambda pids: next_one not in pids,
        "the first one is ended",
    )


class Crowd:
    """A version-1 pids group that can be closed: its processes cannot fork then."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def take(self, pid: int) -> None:
        (self._group / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        (self._group / "pids.max").write_text("1")

    def open(self) -> None:
        (self._group / "pids.max").write_text("max")

    def leave(self) -> bool:
        """Put everybody back to where the group is, and remove it; whether it is gone."""
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                (self._group.parent / "cgroup.procs").write_text(pid)
        return cgroup.remove(str(self._group))


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    own = cgroup.own_hierarchies()
    if "pids" not in own or not os.access(own["pids"], os.W_OK):
        pytest.skip("no version-1 group of processes to be had")
    group = Path(own["pids"]) / f"drill-{os.getpid()}"
    group.mkdir()
    crowd = Crowd(group)
    yield crowd
    crowd.open()
    wait_until(crowd.leave, bool, "the group is empty")


def close_the_launcher(harness: DaemonHarness, crowd: Crowd) -> None:
    """From here on it has no spare shim, and cannot fork."""
    forked = spare(harness)
    crowd.take(harness.launcher_pid())
    crowd.close()
    os.kill(forked, signal.SIGKILL)
    wait_until(lambda: forked_by(harness), lambda pids: forked not in pids, "it is reaped")


def test_a_fork_that_fails_for_a_moment_is_tried_again(build: Build, crowd: Crowd) -> None:
    """The launcher has no process to fork: the run waits, says why and how often, and works once it has;
    one that is stopped meanwhile is cancelled at once."""
    harness = build(timeouts={"handshake_s": 60.0})
    harness.allow(Catalogue.LAUNCH_DELAYED, Catalogue.LAUNCH_FAILED)
    harness.ended(harness.submit("true"))
    close_the_launcher(harness, crowd)
    run_id = harness.submit("sh", "-c", "exit 3")
    trouble = wait_until(lambda: harness.get(run_id), lambda run: "times" in str(run["reason"]), "its tries")
    assert trouble["state"] == "HSHK" and "Resource temporarily unavailable" in trouble["reason"]
    stopped = harness.submit("true")
    harness.until(stopped, "HSHK")
    harness.call("run.stop", run_id=stopped)
    end = harness.ended(stopped)
    assert (end["outcome"], end["cause"]["never_started"]) == ("cancelled", "spawn_failed"), "at once"
    crowd.open()
    run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"], run["reason"]) == ("failed", 3, None)


def test_a_fork_that_fails_for_long_is_named(build: Build, crowd: Crowd) -> None:
    """The handshake's deadline ends the tries: the cause says what was missing and how often it was tried;
    it is the machine's, so policy retries it."""
    harness = build(timeouts={"handshake_s": 1.0})
    harness.allow(Catalogue.LAUNCH_DELAYED, Catalogue.LAUNCH_FAILED)
    harness.ended(harness.submit("true"))
    close_the_launcher(harness, crowd)
    run_id = harness.submit("true")
    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("failed", "handshake_timeout")
    assert "Resource temporarily unavailable" in run["cause"]["error"] and "tried" in run["cause"]["error"]
    retried = harness.submit("true", retries=100)
    wait_until(lambda: harness.get(retried), lambda run: run["retries_used"] > 0, "it is tried again")
    crowd.open()
    assert harness.ended(retried)["outcome"] == "succeeded"


def forked_by(harness: DaemonHarness) -> list[int]:
    return processes.children(harness.launcher_pid())
