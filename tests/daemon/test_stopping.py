"""A stop that comes upon something under way: it is carried out at once, and nothing is called wrong."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Conflict, MosaicError
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import DEADLINE_S, wait_until


def checks(harness: DaemonHarness) -> list[str]:
    """What the daemon has asked other programs, as they are being asked."""
    assert harness.process is not None
    pid = harness.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = []
    for child in children:
        try:
            lines.append(Path(f"/proc/{child}/cmdline").read_text())
        except OSError:
            continue  # it has ended meanwhile
    return [line for line in lines if "--check" in line]


def replaced(harness: DaemonHarness) -> tuple[bytes, threading.Thread, list[MosaicError]]:
    """Request a reexec; a reader of the settings is blocked until the test continues it."""
    settings = harness.config.read_bytes()
    harness.config.unlink()
    os.mkfifo(harness.config)
    refused: list[MosaicError] = []

    def asks() -> None:
        try:
            harness.call("daemon.reexec")
        except MosaicError as error:
            refused.append(error)

    asking = threading.Thread(target=asks)
    asking.start()
    wait_until(lambda: checks(harness), bool, "the program that would come is looked at")
    return settings, asking, refused


def told(harness: DaemonHarness, settings: bytes) -> None:
    """Let the reader of the settings continue; fail if there is none."""
    assert harness.process is not None

    def reader() -> int | None:
        assert harness.process is not None and harness.process.poll() is None
        try:
            return os.open(harness.config, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return None

    found = wait_until(reader, lambda fd: fd is not None, "a process reads the settings")
    assert found is not None
    with os.fdopen(found, "wb") as pipe:
        pipe.write(settings)


def test_a_stop_is_not_forgotten_over_a_reexec(build: Build) -> None:
    """SIGTERM while the program that would come is still looked at: the daemon ends, and whoever wanted
    another in its place is told."""
    harness = build(timeouts={"shutdown_s": DEADLINE_S})
    assert harness.process is not None
    settings, asking, refused = replaced(harness)
    harness.process.send_signal(signal.SIGTERM)
    wait_until(lambda: harness.logged(Catalogue.DAEMON_STOPPING, "SIGTERM"), bool, "the stop is logged")
    told(harness, settings)
    assert harness.process.wait(DEADLINE_S) == 0
    asking.join(DEADLINE_S)
    assert [type(error) for error in refused] == [Conflict]
    assert not harness.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_between_two_programs(harness: DaemonHarness, number: signal.Signals) -> None:
    """A signal that comes when the one has ended and the other has not begun is taken by the other: it stops
    in good order."""
    assert harness.process is not None
    settings, asking, refused = replaced(harness)
    told(harness, settings)
    asking.join(DEADLINE_S)
    wait_until(lambda: harness.logged(Catalogue.DAEMON_REPLACED), bool, "the first program has ended")
    harness.process.send_signal(number)
    told(harness, settings)
    assert harness.process.wait(DEADLINE_S) == 0
    assert not refused and not harness.socket.exists()
