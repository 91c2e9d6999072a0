"""A launcher that does not answer is replaced, as often as it takes; one that has answered never is."""

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
#: Answers every question; with "mute" none.
FAKE = """
import json, socket, sys
orders = socket.socket(fileno=int(sys.argv[1]))
while packet := orders.recv(65536):
    if sys.argv[2] != "mute":
        asked = json.loads(packet)
        reply = {"reply": "empty", "id": asked["id"], "run_id": asked["run_id"], "empty": True, "pids": []}
        orders.send(json.dumps(reply).encode())
"""


def client_of(kind: str, patch: pytest.MonkeyPatch, third: asyncio.Event | None = None) -> LauncherClient:
    """A client of such launchers; `third` is set when the third of them is started."""
    started: list[int] = []

    def command(fd: int, mode: str, soft_limit: int | None) -> list[str]:
        started.append(fd)
        if third is not None and len(started) == 3:
            third.set()
        return [sys.executable, "-S", "-E", "-c", FAKE, str(fd), kind]

    patch.setattr(launcher, "command", command)
    return LauncherClient(silence_s=SILENCE_S)


async def test_an_answer_that_was_not_read_yet_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A suspended daemon finds the time over and the answer there, and kills no launcher."""
    client = client_of("prompt", monkeypatch)
    client.start()
    assert client._launcher is not None
    asked = asyncio.create_task(client.check_tree("r", (None, None)))
    await asyncio.sleep(0)
    answer = select.poll()
    answer.register(client._launcher.socket, select.POLLIN)
    assert answer.poll(20_000)
    # The loop does not run meanwhile.
    signal.sigtimedwait([], SILENCE_S * (MOST_SILENT_CHECKS + 2) / MOST_SILENT_CHECKS)
    with caplog.at_level(logging.WARNING):
        assert await asked == (True, [])
        client.silence_s = 60.0  # how soon the next answer comes is not what this is about
        assert await client.check_tree("r", (None, None)) == (True, [])
        await client.close()
    assert (caplog.messages, client.restarts) == ([], 0)


async def test_a_start_without_a_descriptor_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    """Room for the socket pair and no more: it is said, and what is asked meanwhile is answered later."""
    client = LauncherClient()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    few = max(map(int, os.listdir("/proc/self/fd"))) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(2):
            os.close(taken.pop())
        client.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    async with asyncio.timeout(60):
        assert await client.check_tree("01M81BYWTWF7Y6BN2VYWCYC5H8", (None, None)) == (True, [])
    await client.close()
    assert (len(caplog.messages), client.restarts) == (1, 1)
    assert entries(caplog.records) == [Catalogue.LAUNCHER_NOT_STARTED] and "[Errno 24]" in caplog.text


async def test_a_start_that_ends_half_way_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was forked, and cannot be watched: it is ended, and the next one does its work."""
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


async def test_each_that_stands_still_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next launcher gets the order again, and no more time for it than the first: no wait is for ever."""
    third = asyncio.Event()
    client = client_of("mute", monkeypatch, third)
    client.start()
    asked = asyncio.create_task(client.check_tree("r", (None, None)))
    async with asyncio.timeout(60):
        await third.wait()
    asked.cancel()
    await client.close()


async def test_one_that_stands_still_does_not_keep_the_daemon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop waits for a launcher that has something in hand, and not for one that will never go."""
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
