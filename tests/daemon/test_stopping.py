"""A stop that comes upon something under way: it is carried out at once, and nothing is called wrong."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from mosaicd.protocol.errors import Conflict, MosaicError
from tests.daemon.house import DEADLINE_S, House, eventually

Build = Callable[..., House]


def checks(house: House) -> list[str]:
    """What the daemon has asked other programs, as they are being asked."""
    assert house.process is not None
    pid = house.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = []
    for child in children:
        try:
            lines.append(Path(f"/proc/{child}/cmdline").read_text())
        except OSError:
            continue  # it has ended meanwhile
    return [line for line in lines if "--check" in line]


def test_a_stop_is_not_forgotten_over_a_reexec(build: Build) -> None:
    """SIGTERM while the program that would come is still looked at: the daemon ends, and whoever wanted
    another in its place is told."""
    house = build(timeouts={"shutdown_s": DEADLINE_S})
    assert house.process is not None
    settings = house.config.read_bytes()
    house.config.unlink()
    os.mkfifo(house.config)  # whoever reads the settings takes as long as we like
    refused: list[MosaicError] = []

    def asks() -> None:
        try:
            house.call("daemon.reexec")
        except MosaicError as error:
            refused.append(error)

    asking = threading.Thread(target=asks)
    asking.start()
    eventually(lambda: checks(house), bool, "the program that would come is looked at")
    house.process.send_signal(signal.SIGTERM)
    eventually(house.log.read_text, lambda log: "SIGTERM" in log, "the daemon is told to stop")
    house.config.write_bytes(settings)
    assert house.process.wait(DEADLINE_S) == 0
    asking.join(DEADLINE_S)
    assert [type(error) for error in refused] == [Conflict]
    assert not house.socket.exists()
