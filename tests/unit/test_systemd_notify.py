"""What systemd hears of us, over a real datagram socket; and what it passes to us."""

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


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "notify"))
        received.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield received


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    """A notifier of a service without a watchdog."""
    made = Notifier(Supervisor(notify_socket=manager.getsockname()))
    yield made
    made.close()


def test_states_are_told(manager: socket.socket, notifier: Notifier) -> None:
    """Ready with a status, a status, reloading, stopping: each is one datagram in systemd's words."""
    assert notifier.ready("3 live")
    assert notifier.status("4 live")
    assert notifier.reloading(12.5)
    assert notifier.stopping()
    assert [manager.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=3 live", b"STATUS=4 live", b"RELOADING=1\nMONOTONIC_USEC=12500000", b"STOPPING=1",
    ]  # fmt: skip


def test_a_status_is_one_line_of_utf8(manager: socket.socket, notifier: Notifier) -> None:
    """Text beyond latin-1 arrives, and a newline cannot smuggle in another assignment."""
    notifier.status("läuft: 2 → 3 日本\nMAINPID=1")
    assert manager.recv(4096).decode() == "STATUS=läuft: 2 → 3 日本 MAINPID=1"


def test_a_manager_that_does_not_read_blocks_nobody(manager: socket.socket, notifier: Notifier) -> None:
    """With its queue full a status is dropped; readiness is kept and said again."""
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


def test_without_a_manager_nothing_happens() -> None:
    """In a terminal every call is a no-op."""
    notifier = Notifier(Supervisor())
    assert not notifier.ready("x")
    assert not notifier.stopping()
    asyncio.run(notifier.watch(lambda: True))
    notifier.close()


async def test_the_watchdog_is_fed_while_all_is_well(manager: socket.socket) -> None:
    """Ticks come at half the interval and stop, with one log record, while the daemon is not healthy."""
    notifier = Notifier(Supervisor(manager.getsockname(), watchdog_s=0.02))
    manager.setblocking(False)
    asked = 0
    seen_unwell = asyncio.Event()

    def is_healthy() -> bool:
        nonlocal asked
        asked += 1
        if asked > 6:
            seen_unwell.set()
        return asked <= 3

    watching = asyncio.ensure_future(notifier.watch(is_healthy))
    async with asyncio.timeout(10):
        await seen_unwell.wait()
    watching.cancel()
    ticks = []
    try:
        while True:
            ticks.append(manager.recv(4096))
    except BlockingIOError:
        pass
    assert ticks == [b"WATCHDOG=1"] * 3
    notifier.close()


async def test_who_was_held_up_itself_is_looked_at_twice(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """A daemon that stood still, or took long to start, finds its writer silent until that has had a turn:
    it ticks, and says nothing."""
    notifier = Notifier(Supervisor(manager.getsockname(), watchdog_s=0.02))
    answers = [False, True]
    watching = asyncio.ensure_future(notifier.watch(lambda: not answers or answers.pop(0)))
    manager.setblocking(False)
    async with asyncio.timeout(10):
        assert await asyncio.get_running_loop().sock_recv(manager, 4096) == b"WATCHDOG=1"
    watching.cancel()
    assert not answers and not caplog.records
    notifier.close()


def test_variables_of_another_process_are_not_ours() -> None:
    """LISTEN_PID must be us; the variables are taken out in any case, so that no child believes them."""
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


def passing(fd: int, count: int) -> str:
    """Run a process that has `fd` as its descriptor 3, and return what it makes of it."""
    command = ["bash", "-c", f'exec 3<&{fd}; exec "$@"', "bash", sys.executable, "-c", PASSED, str(count)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, pass_fds=[fd], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    return done.stdout.strip()


def test_a_passed_socket_is_taken(tmp_path: Path) -> None:
    """A socket at descriptor 3 arrives as a socket, and no child of ours inherits it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        assert passing(listening.fileno(), 1) == f"{tmp_path / 's'} False"


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    """A passed descriptor that is not a socket is refused; the error has its number."""
    with (tmp_path / "file").open("w") as file:
        assert passing(file.fileno(), 1).startswith("descriptor 3, ")
