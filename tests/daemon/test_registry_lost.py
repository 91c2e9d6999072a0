"""The registry is cared for at start: what is older migrates, what is newer is refused, what is broken is set
aside and made again from the run directories, and runs that live go on."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mosaicd.log import Catalogue
from mosaicd.store.migrations import VERSION
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

REGISTRY = "registry.sqlite3"
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


def break_registry(harness: DaemonHarness, damage: Break) -> bytes:
    """Damage the file as a disk would, all of it in one file; return what it was then."""
    path = harness.state_dir / REGISTRY
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for part in ("-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)
    damage(path)
    return path.read_bytes() if path.exists() else b""


def allow(harness: DaemonHarness) -> None:
    harness.allow(
        Catalogue.REGISTRY_REBUILT,
        Catalogue.ROW_QUARANTINED,
        Catalogue.SLOTS_WITHHELD,
        Catalogue.DIRECTORY_NOT_RECOVERED,
    )


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage.__name__))
def test_a_damaged_registry_costs_no_run(build: Build, damage: Break) -> None:
    """Live runs go on and end exact, ended ones are history with their exact end, waiting ones still start;
    the broken file lies aside untouched, and it is said aloud."""
    harness = build(cpus={"slots": 1})
    allow(harness)
    failed = harness.ended(harness.submit("sh", "-c", "echo out; exit 9"))
    killed = harness.ended(harness.submit("sh", "-c", "kill -9 $$"))
    gate = harness.home / "gate"
    live = harness.program("ticker", str(gate))
    before = harness.until(live, "EXEC")
    waiting = harness.submit("sh", "-c", "echo late")
    withdrawn = harness.submit("true")
    harness.call("run.stop", run_id=withdrawn)
    harness.put_away(failed["run_id"], killed["run_id"], withdrawn)
    epoch = harness.call("daemon.health")["epoch"]
    harness.kill()
    broken = break_registry(harness, damage)
    harness.start()

    health = harness.call("daemon.health")
    assert health["epoch"] != epoch
    [warning] = health["warnings"]
    assert Catalogue.REGISTRY_REBUILT.code in warning and "set-aside" in warning
    if broken:
        [aside] = (harness.state_dir / "set-aside").glob(f"*/{REGISTRY}")
        assert aside.read_bytes() == broken
    for told in (failed, killed):
        now = harness.get(told["run_id"])
        assert {name: now[name] for name in EXACT} == {name: told[name] for name in EXACT}
    assert harness.get(withdrawn)["outcome"] == "cancelled"
    now = harness.until(live, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert harness.ended(live)["exit_code"] == 7
    numbers = list(map(int, harness.stdout(live).split()))
    assert numbers == list(range(1, len(numbers) + 1))
    late = harness.ended(waiting)
    assert late["outcome"] == "succeeded" and harness.stdout(waiting) == b"late\n"
    harness.restart()
    assert harness.call("daemon.health")["warnings"] == [warning]


def test_a_newer_registry_is_refused(build: Build) -> None:
    """A sentence and exit 3; the file is not touched, the socket does not stay, and runs go on."""
    harness = build()
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    assert harness.stop() == 0
    path = harness.state_dir / REGISTRY
    set_version(path, 999)
    before = path.read_bytes()
    said = harness.run_daemon()
    assert said.returncode == 3 and "has version 999" in said.stderr, said
    assert path.read_bytes() == before and not harness.socket.exists()
    assert harness.pids(run_id)
    set_version(path, VERSION)
    harness.start()
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_another_programs_database_is_refused(build: Build) -> None:
    """What is not ours is neither used nor set aside."""
    harness = build(start=False)
    harness.state_dir.mkdir(mode=0o700)
    path = harness.state_dir / REGISTRY
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    said = harness.run_daemon()
    assert said.returncode == 3 and str(path) in said.stderr, said
    assert path.read_bytes() == before
    path.unlink()


def test_pauses_slots_and_attempts_come_back(build: Build) -> None:
    """A frozen run stays frozen, GPU slots stay its own, a second attempt stays the second."""
    harness = build(gpus={"static": 2}, cpus={"slots": 4})
    allow(harness)
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    frozen = harness.program("ticker", str(gate), gpus=1)
    tried = harness.program("ticker", str(gate), retries=2, gpus=1)
    harness.until(tried, "EXEC")
    slots = harness.until(frozen, "EXEC")["slots"]
    harness.call("run.pause", run_id=frozen)
    harness.until(frozen, "PAUSE")
    [pid] = [pid for pid in harness.shims() if str(harness.attempt(tried)) in links(pid)]
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: harness.get(tried),
        lambda run: (run["attempt"], run["state"]) == (2, "EXEC"),
        "another attempt",
    )
    harness.kill()
    break_registry(harness, garble_header)
    harness.start()

    def standing() -> tuple[object, ...]:
        run, other = harness.get(frozen), harness.get(tried)
        return (
            run["state"],
            run["want"],
            run["slots"],
            other["state"],
            other["attempt"],
            other["retries_used"],
        )

    wait_until(standing, lambda seen: seen == ("PAUSE", "pause", slots, "EXEC", 2, 1), "all as before")
    harness.call("run.resume", run_id=frozen)
    gate.touch()
    assert [harness.ended(run_id)["exit_code"] for run_id in (frozen, tried)] == [7, 7]


def test_a_lost_write_ahead_log_is_no_silent_loss(build: Build) -> None:
    """A registry whose WAL is gone is whole and too old; what its run directories know is not thrown away."""
    harness = build()
    path = harness.state_dir / REGISTRY
    done = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.kill()
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)
    allow(harness)
    harness.start()
    found = harness.ended(done["run_id"])  # what its files tell; its slot is kept until nothing of it is seen
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
