"""A shim forked ahead: used once, replaced, never missed, and gone with its launcher."""

import os
import signal
from pathlib import Path

from mosaicd.shim import containment
from tests.shim.house import House


def spares(house: House) -> list[int]:
    """The launcher's children that wait for an order."""
    pid = house.launcher.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if title(int(child)) == "mosaic-spare\n"]


def title(pid: int) -> str:
    """Its name in ps, empty when it has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def spare(house: House) -> int:
    """The spare, once there is one."""
    return house.peer.until(lambda: spares(house))[0]


def test_a_spare_becomes_the_next_shim_and_is_replaced(house: House) -> None:
    """After a pause an order is given to a process that is there already; then another one is forked."""
    waiting = spare(house)
    run = house.launch(["true"])
    assert run.shim_pid == waiting
    assert run.exit()["exit_code"] == 0
    house.peer.until(lambda: spares(house) not in ([], [waiting]))
    run.leaves()


def test_a_killed_spare_is_not_missed(house: House) -> None:
    """A spare that was killed costs an order nothing but the fork."""
    waiting = spare(house)
    house.signal(waiting, signal.SIGKILL)
    house.peer.until(lambda: not ((found := containment.look_at(waiting)) and found.is_alive))
    run = house.launch(["true"])
    assert run.exit()["exit_code"] == 0
    run.leaves()


def test_a_spare_holds_nothing_of_the_launcher(house: House) -> None:
    """Its only descriptors are /dev/null, its wake pipe and its channel."""
    waiting = spare(house)
    targets = [os.readlink(entry).split(":")[0] for entry in Path(f"/proc/{waiting}/fd").iterdir()]
    assert sorted(targets) == [*["/dev/null"] * 3, "pipe", "pipe", "socket"]
    assert Path(f"/proc/{waiting}/stat").read_text().split()[5] == str(waiting)  # a session of its own


def test_a_spare_goes_with_its_launcher(house: House) -> None:
    """kill -9 of the launcher ends the spare, also while a shim lives on that was forked beside it."""
    spare(house)
    first, second = house.launch(["sleep", "1000"]), house.launch(["sleep", "1000"])
    for run in (first, second):
        run.fact("started")
    waiting = spare(house)
    house.signal(house.launcher.pid, signal.SIGKILL)
    house.peer.until(lambda: not ((found := containment.look_at(waiting)) and found.is_alive))
    for run in (first, second):
        run.control("stop", grace_s=0)
        run.ends_empty()
