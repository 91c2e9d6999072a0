"""A stop during another operation is carried out immediately and without an error."""

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


def running_checks(harness: DaemonHarness) -> list[str]:
    """Return the command lines of the checks that the daemon has running."""
    assert harness.process is not None
    pid = harness.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = []
    for child in children:
        try:
            lines.append(Path(f"/proc/{child}/cmdline").read_text())
        except OSError:
            continue  # the process has exited meanwhile
    return [line for line in lines if "--check" in line]


def begin_reexec(harness: DaemonHarness) -> tuple[bytes, threading.Thread, list[MosaicError]]:
    """Request a reexec; the check of the next program blocks on the settings file until the test continues
    it.

    Return the settings, the thread of the request and its errors.
    """
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
    wait_until(lambda: running_checks(harness), bool, "the next program is checked")
    return settings, asking, refused


def answer_reader(harness: DaemonHarness, settings: bytes) -> None:
    """Write the settings for the process that reads them; fail if there is none."""
    assert harness.process is not None

    def reader() -> int | None:
        assert harness.process is not None and harness.process.poll() is None
        try:
            return os.open(harness.config, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return None

    descriptor = wait_until(reader, lambda fd: fd is not None, "a process reads the settings")
    assert descriptor is not None
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(settings)


def test_a_stop_during_a_reexec_stops_the_daemon(build: Build) -> None:
    """SIGTERM during a reexec's check of the next program stops the daemon; the reexec is refused."""
    harness = build(timeouts={"shutdown_s": DEADLINE_S})
    assert harness.process is not None
    settings, asking, refused = begin_reexec(harness)
    harness.process.send_signal(signal.SIGTERM)
    wait_until(lambda: harness.logged(Catalogue.DAEMON_STOPPING, "SIGTERM"), bool, "the stop is logged")
    answer_reader(harness, settings)
    assert harness.process.wait(DEADLINE_S) == 0
    asking.join(DEADLINE_S)
    assert [type(error) for error in refused] == [Conflict]
    assert not harness.socket.exists()


@pytest.mark.usefixtures("default_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_between_two_programs_stops_the_next(harness: DaemonHarness, number: signal.Signals) -> None:
    """A signal that arrives between the end of the first program and the start of the next stops the next one
    in order."""
    assert harness.process is not None
    settings, asking, refused = begin_reexec(harness)
    answer_reader(harness, settings)
    asking.join(DEADLINE_S)
    wait_until(lambda: harness.logged(Catalogue.DAEMON_REPLACED), bool, "the first program has ended")
    harness.process.send_signal(number)
    answer_reader(harness, settings)
    assert harness.process.wait(DEADLINE_S) == 0
    assert not refused and not harness.socket.exists()
