"""The soft limit of open descriptors: the daemon raises its own; its runs get the limit that it was started
with."""

import contextlib
import json
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from mosaicd.protocol.framing import encode, request
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import DEADLINE_S

SOFT = 1024
CONNECTIONS = 1200


def daemon_limits(harness: DaemonHarness) -> tuple[int, int]:
    """Return the soft and the hard limit of open descriptors of the daemon."""
    assert harness.process is not None
    return resource.prlimit(harness.process.pid, resource.RLIMIT_NOFILE)


@pytest.fixture
def started(build: Callable[..., DaemonHarness]) -> Iterator[DaemonHarness]:
    """A daemon that was started with a soft limit of 1024, as a login shell has it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CONNECTIONS:
        pytest.skip(f"the hard limit of open descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))
    try:
        harness = build(limits={"connections_per_user": 2 * CONNECTIONS})
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # this test holds the client ends
        yield harness
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_the_soft_limit_are_served(started: DaemonHarness) -> None:
    """The daemon serves more than 1,024 connections, although its soft limit was 1,024 when it started."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            link.settimeout(DEADLINE_S)
            link.connect(str(started.socket))
            link.sendall(encode(request("daemon.hello", {"client": "test"}, 1)))
            assert json.loads(link.makefile("rb").readline())["result"]["ready"]
        assert started.process is not None
        assert len(os.listdir(f"/proc/{started.process.pid}/fd")) > CONNECTIONS


def test_a_run_has_the_soft_limit_that_the_daemon_was_started_with(started: DaemonHarness) -> None:
    """A run gets the soft limit of 1,024 and the unchanged hard limit, also after a reexec of the daemon."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    expected = b"%d %d\n" % (SOFT, hard)
    command = ("sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)")
    first = started.submit(*command)
    started.ended(first)
    assert started.stdout(first) == expected
    assert started.ctl("daemon", "reexec").returncode == 0
    assert daemon_limits(started) == (hard, hard)
    second = started.submit(*command)
    started.ended(second)
    assert started.stdout(second) == expected
