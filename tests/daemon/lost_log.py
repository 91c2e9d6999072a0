"""A registry that loses its newest commits, and daemons that die at a named point."""

import json
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from mosaicd import crash_points
from tests.daemon.house import DEADLINE_S, ROOT, House

REGISTRY = "registry.sqlite3"
BEHIND = "behind its run directories"


def begin_log(house: House) -> None:
    """From here on, all that is committed stands in the write-ahead log alone."""
    house.stop()
    house.start()


def lose_log(house: House) -> None:
    """Kill the daemon and lose the write-ahead log, as a careless copy does."""
    if house.process is not None and house.process.poll() is None:
        house.kill()
    for part in ("-wal", "-shm"):
        (house.state_dir / f"{REGISTRY}{part}").unlink(missing_ok=True)
    house.allowed_warnings += [BEHIND, "does not tell"]


def dies_at(house: House, point: str, patch: pytest.MonkeyPatch, method: str, **params: Any) -> None:
    """Start the daemon, ask it for something, and have it die at `point` without an answer."""
    patch.setenv(crash_points.VARIABLE, point)
    house.start()
    patch.delenv(crash_points.VARIABLE)
    with socket.socket(socket.AF_UNIX) as link:  # not a client, which would ask the next daemon, too
        link.connect(str(house.socket))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        link.sendall(json.dumps(request).encode() + b"\n")
        assert house.process is not None and house.process.wait(DEADLINE_S) == -signal.SIGKILL


def begin_and_die(house: House, point: str) -> None:
    """Start a daemon that does not live to be asked."""
    place = [f"--state-dir={house.state_dir}", f"--socket={house.socket}", f"--config={house.config}"]
    ended = subprocess.run(
        [sys.executable, "-m", "mosaicd", *place], check=False, timeout=60, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "HOME": str(house.home), crash_points.VARIABLE: point}, cwd=house.home,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended


def is_there(house: House, run_id: str) -> bool:
    return (house.state_dir / "runs" / run_id).exists()


def warnings(house: House) -> list[str]:
    found: list[str] = house.call("daemon.health")["warnings"]
    return [warning for warning in found if BEHIND in warning]


def one_and_slowly(first: str, *others: str) -> list[Any]:
    """Points of which the first is always tried, and the others by the drill."""
    return [first, *(pytest.param(point, marks=pytest.mark.slow) for point in others)]
