"""A shim forked ahead: used once, replaced, never missed, and gone with its launcher."""

import os
import signal
from pathlib import Path

from mosaicd import procfs
from tests.harness.shim import ShimHarness


def spares(harness: ShimHarness) -> list[int]:
    """The launcher's children that wait for an order."""
    pid = harness.launcher.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if title(int(child)) == "mosaic-spare\n"]


def title(pid: int) -> str:
    """Its name in ps, empty when it has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def spare(harness: ShimHarness) -> int:
    """The spare, once there is one."""
    return harness.peer.until(lambda: spares(harness))[0]


def test_a_spare_becomes_the_next_shim_and_is_replaced(harness: ShimHarness) -> None:
    """After a pause an order is given to a process that is there already; then another one is forked."""
    waiting = spare(harness)
    run = harness.launch(["true"])
    assert run.shim_pid == waiting
    assert run.exit()["exit_code"] == 0
    harness.peer.until(lambda: spares(harness) not in ([], [waiting]))
    run.wait_until_shim_exits()


def test_a_killed_spare_is_not_missed(harness: ShimHarness) -> None:
    """A spare that was killed costs an order nothing but the fork."""
    waiting = spare(harness)
    harness.signal(waiting, signal.SIGKILL)
    harness.peer.until(lambda: not ((found := procfs.read_process(waiting)) and found.is_alive))
    run = harness.launch(["true"])
    assert run.exit()["exit_code"] == 0
    run.wait_until_shim_exits()


def test_a_spare_holds_nothing_of_the_launcher(harness: ShimHarness) -> None:
    """Its only descriptors are /dev/null, its wake pipe and its channel."""
    waiting = spare(harness)
    targets = [os.readlink(entry).split(":")[0] for entry in Path(f"/proc/{waiting}/fd").iterdir()]
    assert sorted(targets) == [*["/dev/null"] * 3, "pipe", "pipe", "socket"]
    assert Path(f"/proc/{waiting}/stat").read_text().split()[5] == str(waiting)  # a session of its own


def test_a_spare_goes_with_its_launcher(harness: ShimHarness) -> None:
    """kill -9 of the launcher ends the spare, also while a shim lives on that was forked beside it."""
    spare(harness)
    first, second = harness.launch(["sleep", "1000"]), harness.launch(["sleep", "1000"])
    for run in (first, second):
        run.fact("started")
    waiting = spare(harness)
    harness.signal(harness.launcher.pid, signal.SIGKILL)
    harness.peer.until(lambda: not ((found := procfs.read_process(waiting)) and found.is_alive))
    for run in (first, second):
        run.control("stop", grace_s=0)
        run.wait_until_tree_is_empty()
