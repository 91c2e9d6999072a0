"""The launcher's client replaces a launcher that hangs or cannot start, and no other launcher."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import select
import signal
import sys

import pytest

from mosaicd import launcher
from mosaicd.log import Catalogue
from mosaicd.shims import launcher_client
from mosaicd.shims.launcher_client import MOST_SILENT_CHECKS, LauncherClient
from tests.harness.trouble import entries

SILENCE_S = 0.3
#: A launcher that answers every check; with the argument "mute" it answers none.
FAKE = """
import json, socket, sys
orders = socket.socket(fileno=int(sys.argv[1]))
while packet := orders.recv(65536):
    if sys.argv[2] != "mute":
        check = json.loads(packet)
        reply = {"reply": "empty", "id": check["id"], "run_id": check["run_id"], "empty": True, "pids": []}
        orders.send(json.dumps(reply).encode())
"""


def client_of(kind: str, patch: pytest.MonkeyPatch, third: asyncio.Event | None = None) -> LauncherClient:
    """Return a client of fake launchers; `third` is set when the third launcher is started."""
    started: list[int] = []

    def command(fd: int, mode: str, soft_limit: int | None) -> list[str]:
        started.append(fd)
        if third is not None and len(started) == 3:
            third.set()
        return [sys.executable, "-S", "-E", "-c", FAKE, str(fd), kind]

    patch.setattr(launcher, "command", command)
    return LauncherClient(silence_s=SILENCE_S)


async def test_an_answer_that_arrived_during_a_suspend_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the time is over and the answer is in the socket, the launcher is not replaced."""
    client = client_of("prompt", monkeypatch)
    client.start()
    assert client._launcher is not None
    check = asyncio.create_task(client.check_tree("r", (None, None)))
    await asyncio.sleep(0)
    answer = select.poll()
    answer.register(client._launcher.socket, select.POLLIN)
    assert answer.poll(20_000)
    # Wait without running the event loop.
    signal.sigtimedwait([], SILENCE_S * (MOST_SILENT_CHECKS + 2) / MOST_SILENT_CHECKS)
    with caplog.at_level(logging.WARNING):
        assert await check == (True, [])
        client.silence_s = 60.0  # the speed of the next answer is not under test
        assert await client.check_tree("r", (None, None)) == (True, [])
        await client.close()
    assert (caplog.messages, client.restarts) == ([], 0)


async def test_a_launcher_start_without_a_free_descriptor_is_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If only the socket pair fits, the failed start is logged and a waiting check is answered later."""
    client = LauncherClient()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors: list[int] = []
    few = max(map(int, os.listdir("/proc/self/fd"))) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                descriptors.append(os.dup(0))
        for _ in range(2):
            os.close(descriptors.pop())
        client.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in descriptors:
            os.close(descriptor)
    async with asyncio.timeout(60):
        assert await client.check_tree("01M81BYWTWF7Y6BN2VYWCYC5H8", (None, None)) == (True, [])
    await client.close()
    assert (len(caplog.messages), client.restarts) == (1, 1)
    assert entries(caplog.records) == [Catalogue.LAUNCHER_NOT_STARTED] and "[Errno 24]" in caplog.text


async def test_a_launcher_start_that_fails_half_way_leaks_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher without a pidfd is killed, and the next launcher answers the check."""
    open_pidfd, forked = os.pidfd_open, []

    def full(pid: int, flags: int = 0) -> int:
        forked.append(pid)
        monkeypatch.setattr(os, "pidfd_open", open_pidfd)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    client = LauncherClient()
    client.start()
    assert forked and not os.path.exists(f"/proc/{forked[0]}")
    assert "Too many open files" in str(client.start_error)
    async with asyncio.timeout(60):
        assert await client.check_tree("01M81BYWTWF7Y6BN2VYWCYC5H8", (None, None)) == (True, [])
    assert client.start_error is None
    await client.close()


async def test_every_launcher_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second launcher that hangs is replaced too, and the third receives the order again."""
    third = asyncio.Event()
    client = client_of("mute", monkeypatch, third)
    client.start()
    check = asyncio.create_task(client.check_tree("r", (None, None)))
    async with asyncio.timeout(60):
        await third.wait()
    check.cancel()
    await client.close()


async def test_a_launcher_that_hangs_does_not_delay_the_stop_of_the_daemon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client waits for a launcher that exits by itself, and kills a launcher that hangs."""
    monkeypatch.setattr(launcher_client, "LEAVE_S", SILENCE_S)
    for is_stopped in (False, True):
        client = client_of("prompt", monkeypatch)
        client.start()
        assert client._launcher is not None
        process = client._launcher.process
        if is_stopped:
            process.send_signal(signal.SIGSTOP)
        else:
            monkeypatch.setattr(launcher_client, "LEAVE_S", 20.0)
            assert await client.check_tree("r", (None, None)) == (True, [])
        async with asyncio.timeout(20):
            await client.close()
        monkeypatch.setattr(launcher_client, "LEAVE_S", SILENCE_S)
        assert process.returncode == (-signal.SIGKILL if is_stopped else 0)
        assert len(caplog.records) == is_stopped
