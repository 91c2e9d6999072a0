"""The spare: a shim that the launcher forks in advance, uses once, and replaces."""

import os
import signal
from pathlib import Path

from mosaicd import procfs
from tests.harness.shim import ShimHarness


def spares(harness: ShimHarness) -> list[int]:
    """Return the pids of the launcher's children that wait for an order."""
    pid = harness.launcher.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if title(int(child)) == "mosaic-spare\n"]


def title(pid: int) -> str:
    """Return the name of a process in ps; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def wait_for_spare(harness: ShimHarness) -> int:
    """Wait for the spare and return its pid."""
    return harness.peer.until(lambda: spares(harness))[0]


def test_a_spare_becomes_the_next_shim_and_is_replaced(harness: ShimHarness) -> None:
    """The launcher gives an order to the spare, and then forks another spare."""
    waiting = wait_for_spare(harness)
    run = harness.launch(["true"])
    assert run.shim_pid == waiting
    assert run.exit()["exit_code"] == 0
    harness.peer.until(lambda: spares(harness) not in ([], [waiting]))
    run.wait_until_shim_exits()


def test_an_order_after_the_spare_was_killed_forks_a_shim(harness: ShimHarness) -> None:
    """If the spare was killed, the launcher forks a shim for the order."""
    waiting = wait_for_spare(harness)
    harness.signal(waiting, signal.SIGKILL)
    harness.peer.until(lambda: not ((found := procfs.read_process(waiting)) and found.is_alive))
    run = harness.launch(["true"])
    assert run.exit()["exit_code"] == 0
    run.wait_until_shim_exits()


def test_a_spare_has_no_descriptor_of_the_launcher(harness: ShimHarness) -> None:
    """The only descriptors of a spare are /dev/null, its wake pipe and its channel."""
    waiting = wait_for_spare(harness)
    targets = [os.readlink(entry).split(":")[0] for entry in Path(f"/proc/{waiting}/fd").iterdir()]
    assert sorted(targets) == [*["/dev/null"] * 3, "pipe", "pipe", "socket"]
    assert Path(f"/proc/{waiting}/stat").read_text().split()[5] == str(waiting)  # its own session


def test_a_spare_exits_with_its_launcher(harness: ShimHarness) -> None:
    """After a kill -9 of the launcher the spare exits, and the shims continue."""
    wait_for_spare(harness)
    first, second = harness.launch(["sleep", "1000"]), harness.launch(["sleep", "1000"])
    for run in (first, second):
        run.fact("started")
    waiting = wait_for_spare(harness)
    harness.signal(harness.launcher.pid, signal.SIGKILL)
    harness.peer.until(lambda: not ((found := procfs.read_process(waiting)) and found.is_alive))
    for run in (first, second):
        run.control("stop", grace_s=0)
        run.wait_until_tree_is_empty()
