"""A registry that loses its newest commits, and daemons that die at a named point."""

import json
import signal
import socket
from typing import Any

import pytest

from mosaicd import crash_points
from mosaicd.log import Catalogue
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import DEADLINE_S

REGISTRY = "registry.sqlite3"


def begin_log(harness: DaemonHarness) -> None:
    """From here on, all that is committed stands in the write-ahead log alone."""
    harness.stop()
    harness.start()


def lose_log(harness: DaemonHarness) -> None:
    """Kill the daemon and lose the write-ahead log, as a careless copy does."""
    if harness.process is not None and harness.process.poll() is None:
        harness.kill()
    for part in ("-wal", "-shm"):
        (harness.state_dir / f"{REGISTRY}{part}").unlink(missing_ok=True)
    harness.allow(Catalogue.REGISTRY_BEHIND, Catalogue.DIRECTORY_NOT_RECOVERED)


def dies_at(
    harness: DaemonHarness, point: str, patch: pytest.MonkeyPatch, method: str, **params: Any
) -> None:
    """Start the daemon, ask it for something, and have it die at `point` without an answer."""
    patch.setenv(crash_points.VARIABLE, point)
    harness.start()
    patch.delenv(crash_points.VARIABLE)
    with socket.socket(socket.AF_UNIX) as link:  # not a client, which would ask the next daemon, too
        link.connect(str(harness.socket))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        link.sendall(json.dumps(request).encode() + b"\n")
        assert harness.process is not None and harness.process.wait(DEADLINE_S) == -signal.SIGKILL


def begin_and_die(harness: DaemonHarness, point: str) -> None:
    """Start a daemon that does not live to be asked."""
    ended = harness.run_daemon(environment={crash_points.VARIABLE: point})
    assert ended.returncode == -signal.SIGKILL, ended


def is_there(harness: DaemonHarness, run_id: str) -> bool:
    return (harness.state_dir / "runs" / run_id).exists()


def warnings(harness: DaemonHarness) -> list[str]:
    found: list[str] = harness.call("daemon.health")["warnings"]
    return [warning for warning in found if Catalogue.REGISTRY_BEHIND.code in warning]


def one_and_slowly(first: str, *others: str) -> list[Any]:
    """Points of which the first is always tried, and the others by the drill."""
    return [first, *(pytest.param(point, marks=pytest.mark.slow) for point in others)]
