"""No process escapes a control group: processes start in it, are found in it, and end with a stop."""

import os
import signal
from pathlib import Path

import pytest

from mosaicd.shim import cgroup
from tests.containment.fuse import HoldingServer
from tests.containment.groups import BOMB, group_of, living, run_cgroups_of, version_2
from tests.harness.shim import Run, ShimHarness

#: Starts a process without marker, kin or common session that ignores SIGTERM and prints `up PID`.
ESCAPED = (
    '(setsid env -i sh -c \'(setsid env -i nohup sh -c "trap \\"\\" TERM; echo up \\$\\$; '
    "while :; do sleep 0.2; done\" &)' &)"
)


def escaped_pid(run: Run) -> int:
    """Return the pid that ESCAPED prints."""
    run.wait_for_output("up ")
    return int((run.dir / "stdout.log").read_text().split("up ")[1].split()[0])


def run_group(run: Run) -> Path:
    """Return the control group of the worker."""
    return Path(run.json("started.json")["cgroup"])


def test_a_worker_starts_in_its_group(harness: ShimHarness) -> None:
    """From its first instruction the worker and its children are in run/, and the shim is in shim/."""
    run = harness.launch(["sh", "-c", "cat /proc/self/cgroup; echo end; sleep 1000"])
    run.wait_for_output("end")
    output = (run.dir / "stdout.log").read_text()
    outer = f"run-{run.run_id}-1"
    assert f"{outer}/run\n" in output
    started = run.json("started.json")
    assert started["containment"] == "cgroup-v2"
    assert group_of(started["pid"]).endswith(f"{outer}/run")
    assert group_of(run.shim_pid).endswith(f"{outer}/shim")
    assert version_2() in Path(started["cgroup"]).parents
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))


def test_a_stop_ends_all_processes_of_a_run(harness: ShimHarness) -> None:
    """A stop ends processes with setsid, double fork, nohup, no environment and ignored SIGTERM within its
    grace period."""
    script = f"{ESCAPED}; trap '' TERM; while :; do sleep 0.2; done"
    run = harness.launch(["sh", "-c", script], limits={"grace_s": 600.0})  # overridden by the stop
    pid = escaped_pid(run)
    run.control("stop", grace_s=0.3)
    run.exit()
    harness.peer.until(lambda: not living([pid]), shown=lambda: living([pid]))
    run.wait_until_shim_exits()


def test_an_orphan_without_marker_and_kin_is_found(harness: ShimHarness) -> None:
    """If shim and leader are killed, a process without marker and kin is found, reported with its pid and
    ended."""
    run = harness.launch(["sh", "-c", f"{ESCAPED}; sleep 1000"])
    pid = escaped_pid(run)
    harness.signal(run.shim_pid, signal.SIGKILL)
    harness.signal(run.json("started.json")["pid"], signal.SIGKILL)
    run.wait_until_shim_exits()
    harness.peer.until(lambda: not living([run.json("started.json")["pid"]]))
    reply = harness.is_empty(run)
    assert not reply["empty"] and pid in reply["pids"]
    harness.teardown(run)
    assert not living([pid])
    assert run.json("teardown.json")["containment"] == "cgroup-v2"
    assert harness.is_empty(run)["empty"]
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))


def test_a_fork_bomb_ends(harness: ShimHarness) -> None:
    """A fork bomb stays within the task limit, if there is one, and a stop ends it."""
    run = harness.python(BOMB, containment={"tasks": 200})
    run.wait_for_output("up")
    limits = run.json("started.json")["limits"]
    wanted = 150 if "tasks" in limits else 50
    group = str(run_group(run))
    harness.peer.until(lambda: len(cgroup.pids(group)) >= wanted, 60, lambda: len(cgroup.pids(group)))
    if "tasks" in limits:
        assert limits["tasks"] == 200 and len(cgroup.pids(group)) <= 200
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))


def test_a_frozen_tree_is_frozen_by_the_kernel(harness: ShimHarness) -> None:
    """The facts `paused` and `continued` agree with the kernel's `frozen`, also with a parent in vfork."""
    run = harness.launch(["sh", "-c", f"{ESCAPED}; while :; do /bin/true; done"])
    pid = escaped_pid(run)
    events = run_group(run) / "cgroup.events"
    for count in range(1, 11):
        run.control("pause", mode="freeze")
        run.fact("paused", count=count)
        assert "frozen 1" in events.read_text()
        run.control("resume")
        run.fact("continued", count=count)
        assert "frozen 0" in events.read_text()
    assert living([pid])
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()


@pytest.mark.parametrize("grace_s", [600.0, 0.0])
def test_a_stop_ends_a_frozen_tree(harness: ShimHarness, grace_s: float) -> None:
    """A stop thaws a frozen tree, so that SIGTERM acts immediately; with a grace period of 0, SIGKILL
    acts."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    run.control("pause", mode="freeze")
    run.fact("paused")
    run.control("stop", grace_s=grace_s)
    assert run.exit()["signal"] == (signal.SIGTERM if grace_s else signal.SIGKILL)
    run.wait_until_shim_exits()


def test_a_frozen_orphan_is_ended(harness: ShimHarness) -> None:
    """If the shim of a frozen tree is killed, a teardown thaws and ends the tree."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    run.control("pause", mode="freeze")
    run.fact("paused")
    harness.signal(run.shim_pid, signal.SIGKILL)
    run.wait_until_shim_exits()
    harness.teardown(run, grace_s=20)
    assert harness.is_empty(run)["empty"]
    assert not run.json("teardown.json")["forced"]


def test_a_traced_process_is_ended(harness: ShimHarness) -> None:
    """A process that a debugger holds in a system call is ended by a stop."""
    if not Path("/usr/bin/strace").exists():
        pytest.skip("strace is not installed")
    injection = "inject=clock_nanosleep:delay_enter=600000000"
    run = harness.launch(["strace", "-f", "-o", "/dev/null", "-e", injection, "sleep", "1"])
    harness.peer.until(lambda: len(run.members()) >= 2)
    run.control("stop", grace_s=0.2)
    run.wait_until_tree_is_empty()


@pytest.mark.slow
def test_stale_groups_are_removed(harness: ShimHarness) -> None:
    """A launcher removes stale groups at its start; groups in use stay."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    outer = run_group(run).parent
    stale = outer.parent / "run-01ARZ3NDEKTSV4RRFFQ69G5FAV-3"
    for name in ("shim", "run"):
        (stale / name).mkdir(parents=True)
    harness.close_orders()
    harness.launcher.wait(30)
    harness.start_launcher()
    harness.is_empty(run)
    assert not stale.exists() and outer.exists()
    run.control("stop", grace_s=1)
    run.exit()
    run.wait_until_shim_exits()
    assert harness.is_empty(run)["empty"]
    # a new group may be about to get its worker, so it stays for some seconds
    harness.peer.until(lambda: not outer.exists(), 60)


def test_a_shim_that_cannot_leave_the_group_of_its_worker_ends_the_worker(
    harness: ShimHarness, server: HoldingServer
) -> None:
    """If the shim cannot leave the worker's group after the fork, it ends the worker's process tree before it
    reports the failed start, and does not freeze or kill itself."""
    path = f"{server.path}:{os.environ['PATH']}"  # the worker waits here for the server before its exec
    run = harness.launch(["sh", "-c", f"{ESCAPED}; sleep 1000"], environment={"PATH": path})
    harness.peer.until(server.is_held.is_set)
    [outer] = [Path(path) for path in run_cgroups_of(run.run_id) if Path(path, "shim").is_dir()]
    assert group_of(run.shim_pid).endswith("/run")
    (outer / "shim").rmdir()
    server.close()
    harness.peer.until(lambda: run.has("exit.json"), shown=lambda: run.facts())
    end = run.json("exit.json")
    assert end["fault"] == "spawn_failed"
    assert not end["swept"] or run.members() == [], "a living worker was reported as never started"
    assert (end["signal"], "cannot leave" in end["error"]) == (signal.SIGKILL, True)
    run.wait_until_tree_is_empty()
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))
