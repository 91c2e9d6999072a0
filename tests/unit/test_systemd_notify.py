"""Notifications to systemd over a real datagram socket, and sockets passed by systemd."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.config import Supervisor
from mosaicd.host.systemd import Notifier, listen_fds
from tests.harness.places import ROOT


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield the service manager's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "notify"))
        received.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield received


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    """Yield a notifier of a service without a watchdog."""
    made = Notifier(Supervisor(notify_socket=manager.getsockname()))
    yield made
    made.close()


def test_each_state_is_one_datagram(manager: socket.socket, notifier: Notifier) -> None:
    """Ready, status, reloading and stopping are sent as systemd's assignments."""
    assert notifier.ready("3 live")
    assert notifier.status("4 live")
    assert notifier.reloading(12.5)
    assert notifier.stopping()
    assert [manager.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=3 live", b"STATUS=4 live", b"RELOADING=1\nMONOTONIC_USEC=12500000", b"STOPPING=1",
    ]  # fmt: skip


def test_a_status_is_one_line_of_utf8(manager: socket.socket, notifier: Notifier) -> None:
    """Text beyond latin-1 is sent, and a newline in a status cannot add an assignment."""
    notifier.status("läuft: 2 → 3 日本\nMAINPID=1")
    assert manager.recv(4096).decode() == "STATUS=läuft: 2 → 3 日本 MAINPID=1"


def test_a_manager_that_does_not_read_does_not_block_the_daemon(
    manager: socket.socket, notifier: Notifier
) -> None:
    """If the queue is full, a status is dropped; READY=1 is sent again later."""
    sent = 0
    while notifier.status("full"):
        sent += 1
        assert sent < 10_000
    assert not notifier.ready("ready")
    for _ in range(sent):
        manager.recv(4096)
    assert notifier.status("newest")
    assert manager.recv(4096) == b"READY=1\nSTATUS=ready"
    assert manager.recv(4096) == b"STATUS=newest"


def test_without_a_manager_the_notifier_does_nothing() -> None:
    """Without a notification socket, nothing is sent and no call blocks."""
    notifier = Notifier(Supervisor())
    assert not notifier.ready("x")
    assert not notifier.stopping()
    asyncio.run(notifier.watch(lambda: True))
    notifier.close()


async def test_the_watchdog_is_notified_while_the_daemon_is_healthy(manager: socket.socket) -> None:
    """WATCHDOG=1 is sent only while the daemon is healthy."""
    notifier = Notifier(Supervisor(manager.getsockname(), watchdog_s=0.02))
    manager.setblocking(False)
    checks = 0
    was_unhealthy = asyncio.Event()

    def is_healthy() -> bool:
        nonlocal checks
        checks += 1
        if checks > 6:
            was_unhealthy.set()
        return checks <= 3

    watching = asyncio.ensure_future(notifier.watch(is_healthy))
    async with asyncio.timeout(10):
        await was_unhealthy.wait()
    watching.cancel()
    ticks = []
    try:
        while True:
            ticks.append(manager.recv(4096))
    except BlockingIOError:
        pass
    assert ticks == [b"WATCHDOG=1"] * 3
    notifier.close()


async def test_an_unhealthy_daemon_is_checked_twice(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """After a suspend the writer may fail the first check; the second decides, without a log record."""
    notifier = Notifier(Supervisor(manager.getsockname(), watchdog_s=0.02))
    answers = [False, True]
    watching = asyncio.ensure_future(notifier.watch(lambda: not answers or answers.pop(0)))
    manager.setblocking(False)
    async with asyncio.timeout(10):
        assert await asyncio.get_running_loop().sock_recv(manager, 4096) == b"WATCHDOG=1"
    watching.cancel()
    assert not answers and not caplog.records
    notifier.close()


def test_listen_variables_of_another_process_are_ignored() -> None:
    """Sockets count only if LISTEN_PID is the daemon; the variables are removed in any case."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "PATH": "/bin"}
    assert listen_fds(environ) == []
    assert environ == {"PATH": "/bin"}
    assert listen_fds({}) == []


PASSED = """
import os, socket, sys
from mosaicd.host.systemd import listen_fds
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1]}
try:
    for passed in listen_fds(environ):
        print(passed.getsockname(), passed.get_inheritable())
except ValueError as error:
    print(error)
"""


def output_with_passed(fd: int, count: int) -> str:
    """Return the output of a process that calls listen_fds() with `fd` as its descriptor 3."""
    command = ["bash", "-c", f'exec 3<&{fd}; exec "$@"', "bash", sys.executable, "-c", PASSED, str(count)]
    done = subprocess.run(
        command, pass_fds=[fd], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout.strip()


def test_a_passed_socket_is_used(tmp_path: Path) -> None:
    """Descriptor 3 becomes a socket that children do not inherit."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        assert output_with_passed(listening.fileno(), 1) == f"{tmp_path / 's'} False"


def test_a_passed_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    """The error has the number of the descriptor."""
    with (tmp_path / "file").open("w") as file:
        assert output_with_passed(file.fileno(), 1).startswith("descriptor 3, ")
