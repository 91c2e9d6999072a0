"""Lose the newest commits of the registry; kill the daemon at a crash point."""

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


def empty_log(harness: DaemonHarness) -> None:
    """Restart the daemon, so that all later commits are in the write-ahead log only."""
    harness.stop()
    harness.start()


def lose_log(harness: DaemonHarness) -> None:
    """Kill the daemon and delete the write-ahead log, as an incomplete copy of the files does."""
    if harness.process is not None and harness.process.poll() is None:
        harness.kill()
    for part in ("-wal", "-shm"):
        (harness.state_dir / f"{REGISTRY}{part}").unlink(missing_ok=True)
    harness.allow(Catalogue.REGISTRY_BEHIND, Catalogue.DIRECTORY_NOT_RECOVERED)


def request_and_die_at(
    harness: DaemonHarness, point: str, patch: pytest.MonkeyPatch, method: str, **params: Any
) -> None:
    """Start the daemon, send it one request, and wait until it is killed at `point` without a reply."""
    patch.setenv(crash_points.VARIABLE, point)
    harness.start()
    patch.delenv(crash_points.VARIABLE)
    with socket.socket(socket.AF_UNIX) as link:  # a client would repeat the request to the next daemon
        link.connect(str(harness.socket))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        link.sendall(json.dumps(request).encode() + b"\n")
        assert harness.process is not None and harness.process.wait(DEADLINE_S) == -signal.SIGKILL


def start_and_die_at(harness: DaemonHarness, point: str) -> None:
    """Start a daemon that is killed at `point` before it serves."""
    ended = harness.run_daemon(environment={crash_points.VARIABLE: point})
    assert ended.returncode == -signal.SIGKILL, ended


def has_directory(harness: DaemonHarness, run_id: str) -> bool:
    """Return whether the directory of a run exists."""
    return (harness.state_dir / "runs" / run_id).exists()


def warnings(harness: DaemonHarness) -> list[str]:
    """Return the warnings of daemon.health about a registry that was behind."""
    all_warnings: list[str] = harness.call("daemon.health")["warnings"]
    return [warning for warning in all_warnings if Catalogue.REGISTRY_BEHIND.code in warning]


def first_fast_others_slow(first: str, *others: str) -> list[Any]:
    """Return crash points as test parameters: the first for every test run, the others for the drill."""
    return [first, *(pytest.param(point, marks=pytest.mark.slow) for point in others)]
