"""The registry is cared for at start: what is older migrates, what is newer is refused, what is broken is set
aside and made again from the run directories, and runs that live go on."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mosaicd.store.migrations import VERSION
from tests.daemon.house import ROOT, House, eventually

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
    house.put_away(failed["run_id"], killed["run_id"], withdrawn)
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


def test_a_newer_registry_is_refused(build: Build) -> None:
    """A sentence and exit 3; the file is not touched, the socket does not stay, and runs go on."""
    house = build()
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    house.until(run_id, "EXEC")
    assert house.stop() == 0
    path = house.state_dir / REGISTRY
    set_version(path, 999)
    before = path.read_bytes()
    said = start_and_end(house)
    assert said.returncode == 3 and "has version 999" in said.stderr, said
    assert path.read_bytes() == before and not house.socket.exists()
    assert house.pids(run_id)
    set_version(path, VERSION)
    house.start()
    gate.touch()
    assert house.ended(run_id)["exit_code"] == 7


def test_another_programs_database_is_refused(build: Build) -> None:
    """What is not ours is neither used nor set aside."""
    house = build(start=False)
    house.state_dir.mkdir(mode=0o700)
    path = house.state_dir / REGISTRY
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    said = start_and_end(house)
    assert said.returncode == 3 and "no registry of mosaicd" in said.stderr, said
    assert path.read_bytes() == before
    path.unlink()


def test_pauses_slots_and_attempts_come_back(build: Build) -> None:
    """A frozen run stays frozen, GPU slots stay its own, a second attempt stays the second."""
    house = build(gpus={"static": 2}, cpus={"slots": 4})
    allow(house)
    house.allowed_warnings.append("is gone")
    gate = house.home / "gate"
    frozen = house.program("ticker", str(gate), gpus=1)
    tried = house.program("ticker", str(gate), retries=2, gpus=1)
    house.until(tried, "EXEC")
    slots = house.until(frozen, "EXEC")["slots"]
    house.call("run.pause", run_id=frozen)
    house.until(frozen, "PAUSE")
    [pid] = [pid for pid in house.shims() if str(house.attempt(tried)) in links(pid)]
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: house.get(tried), lambda run: (run["attempt"], run["state"]) == (2, "EXEC"), "another attempt"
    )
    house.kill()
    break_registry(house, garble_header)
    house.start()

    def standing() -> tuple[object, ...]:
        run, other = house.get(frozen), house.get(tried)
        return (
            run["state"],
            run["want"],
            run["slots"],
            other["state"],
            other["attempt"],
            other["retries_used"],
        )

    eventually(standing, lambda seen: seen == ("PAUSE", "pause", slots, "EXEC", 2, 1), "all as before")
    house.call("run.resume", run_id=frozen)
    gate.touch()
    assert [house.ended(run_id)["exit_code"] for run_id in (frozen, tried)] == [7, 7]


def test_a_lost_write_ahead_log_is_no_silent_loss(build: Build) -> None:
    """A registry whose WAL is gone is whole and too old; what its run directories know is not thrown away."""
    house = build()
    path = house.state_dir / REGISTRY
    done = house.ended(house.submit("sh", "-c", "exit 3"))
    house.kill()
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)
    allow(house)
    house.start()
    found = house.ended(done["run_id"])  # what its files tell; its slot is kept until nothing of it is seen
    assert {name: found[name] for name in EXACT} == {name: done[name] for name in EXACT}


def links(pid: int) -> str:
    """What a process has open; what it opens and closes meanwhile may be missing."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(link))
    return " ".join(found)


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def start_and_end(house: House) -> "subprocess.CompletedProcess[str]":
    place = ["--state-dir", str(house.state_dir), "--socket", str(house.socket)]
    return subprocess.run(
        [sys.executable, "-m", "mosaicd", *place], capture_output=True, text=True, check=False, timeout=60,
        env={"PYTHONPATH": str(ROOT), "HOME": str(house.home)},
    )  # fmt: skip
