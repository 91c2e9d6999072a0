"""The registry is cared for at start: what is older migrates, what is newer is refused, what is broken is set
aside and made again from the run directories, and runs that live go on."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicd.protocol import rundir
from tests.daemon.house import House, eventually

REGISTRY = "registry.sqlite3"
Build = Callable[..., House]
Break = Callable[[Path], None]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def zero_pages(path: Path) -> None:
    with open(path, "r+b") as file:
        for page in range(1, path.stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(bytes(4096))


def garble_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(os.urandom(100))


def garble_everything(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


EXACT = ("state", "outcome", "cause", "exit_code", "signal", "started_at", "finished_at", "name", "digest")
DAMAGE = (
    truncate, garble_header,
    *(pytest.param(way, marks=pytest.mark.slow) for way in (empty, remove, zero_pages, garble_everything)),
)  # fmt: skip


def break_registry(house: House, damage: Break) -> bytes:
    """Damage the file as a disk would, all of it in one file; return what it was then."""
    path = house.state_dir / REGISTRY
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for part in ("-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)
    damage(path)
    return path.read_bytes() if path.exists() else b""


def allow(house: House) -> None:
    house.allowed_warnings += ["damaged", "gone or empty", "set aside", "does not tell"]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage.__name__))
def test_a_damaged_registry_costs_no_run(build: Build, damage: Break) -> None:
    """Live runs go on and end exact, ended ones are history with their exact end, waiting ones still start;
    the broken file lies aside untouched, and it is said aloud."""
    house = build(cpus={"slots": 1})
    allow(house)
    failed = house.ended(house.submit("sh", "-c", "echo out; exit 9"))
    killed = house.ended(house.submit("sh", "-c", "kill -9 $$"))
    gate = house.home / "gate"
    live = house.program("ticker", str(gate))
    before = house.until(live, "EXEC")
    waiting = house.submit("sh", "-c", "echo late")
    withdrawn = house.submit("true")
    house.call("run.stop", run_id=withdrawn)
    for over in (failed["run_id"], killed["run_id"], withdrawn):
        environment = house.state_dir / "runs" / over / rundir.ENVIRONMENT
        eventually(environment.exists, lambda there: not there, f"{over} is put away")
    epoch = house.call("daemon.health")["epoch"]
    house.kill()
    broken = break_registry(house, damage)
    house.start()

    health = house.call("daemon.health")
    assert health["epoch"] != epoch
    [warning] = health["warnings"]
    assert "set-aside" in warning and "rebuilt" in warning
    if broken:
        [aside] = (house.state_dir / "set-aside").glob(f"*/{REGISTRY}")
        assert aside.read_bytes() == broken
    for told in (failed, killed):
        now = house.get(told["run_id"])
        assert {name: now[name] for name in EXACT} == {name: told[name] for name in EXACT}
    assert house.get(withdrawn)["outcome"] == "cancelled"
    now = house.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert house.ended(live)["exit_code"] == 7
    numbers = list(map(int, house.stdout(live).split()))
    assert numbers == list(range(1, len(numbers) + 1))
    late = house.ended(waiting)
    assert late["outcome"] == "succeeded" and house.stdout(waiting) == b"late\n"
    house.restart()
    assert house.call("daemon.health")["warnings"] == [warning]
