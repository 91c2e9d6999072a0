"""The registry at start: an older one migrates, a newer one is refused, a damaged one is set aside and
rebuilt from the run directories; live runs continue."""

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
Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    """Cut the file in the middle of a page."""
    os.truncate(path, path.stat().st_size // 2 + 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def zero_pages(path: Path) -> None:
    """Overwrite every second page with zeros."""
    with open(path, "r+b") as file:
        for page in range(1, path.stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(bytes(4096))


def garble_header(path: Path) -> None:
    """Overwrite the header with random bytes."""
    with open(path, "r+b") as file:
        file.write(os.urandom(100))


def garble_everything(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


EXACT = ("state", "outcome", "cause", "exit_code", "signal", "started_at", "finished_at", "name", "digest")
DAMAGE = (
    truncate, garble_header,
    *(pytest.param(way, marks=pytest.mark.slow) for way in (empty, remove, zero_pages, garble_everything)),
)  # fmt: skip


def break_registry(harness: DaemonHarness, damage: Damage) -> bytes:
    """Checkpoint the registry of a stopped daemon into one file and damage it; return its content then."""
    path = harness.state_dir / REGISTRY
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for part in ("-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)
    damage(path)
    return path.read_bytes() if path.exists() else b""


def allow(harness: DaemonHarness) -> None:
    """Allow the warnings of a registry that was rebuilt."""
    harness.allow(
        Catalogue.REGISTRY_REBUILT,
        Catalogue.ROW_QUARANTINED,
        Catalogue.SLOTS_WITHHELD,
        Catalogue.DIRECTORY_NOT_RECOVERED,
    )


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage.__name__))
def test_a_damaged_registry_loses_no_run(build: Build, damage: Damage) -> None:
    """With a damaged registry, live runs continue, ended runs have their exact end, and waiting runs start.

    The damaged file is set aside unchanged, and a warning reports it.
    """
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
    harness.wait_until_cleaned_up(failed["run_id"], killed["run_id"], withdrawn)
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
    for run in (failed, killed):
        now = harness.get(run["run_id"])
        assert {name: now[name] for name in EXACT} == {name: run[name] for name in EXACT}
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
    """A registry of a newer version is refused with an error and exit code 3, and not changed; runs
    continue."""
    harness = build()
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    assert harness.stop() == 0
    path = harness.state_dir / REGISTRY
    set_version(path, 999)
    before = path.read_bytes()
    done = harness.run_daemon()
    assert done.returncode == 3 and "has version 999" in done.stderr, done
    assert path.read_bytes() == before and not harness.socket.exists()
    assert harness.pids(run_id)
    set_version(path, VERSION)
    harness.start()
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_another_programs_database_is_refused(build: Build) -> None:
    """A database of another program is refused, and neither changed nor set aside."""
    harness = build(start=False)
    harness.state_dir.mkdir(mode=0o700)
    path = harness.state_dir / REGISTRY
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    done = harness.run_daemon()
    assert done.returncode == 3 and str(path) in done.stderr, done
    assert path.read_bytes() == before
    path.unlink()


def test_a_rebuild_recovers_pauses_slots_and_attempts(build: Build) -> None:
    """After a rebuild a frozen run stays frozen, runs keep their GPU slots, and attempts keep their
    numbers."""
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
        "attempt 2",
    )
    harness.kill()
    break_registry(harness, garble_header)
    harness.start()

    def positions() -> tuple[object, ...]:
        run, other = harness.get(frozen), harness.get(tried)
        return (
            run["state"],
            run["want"],
            run["slots"],
            other["state"],
            other["attempt"],
            other["retries_used"],
        )

    wait_until(positions, lambda seen: seen == ("PAUSE", "pause", slots, "EXEC", 2, 1), "both are as before")
    harness.call("run.resume", run_id=frozen)
    gate.touch()
    assert [harness.ended(run_id)["exit_code"] for run_id in (frozen, tried)] == [7, 7]


def test_a_lost_write_ahead_log_loses_no_ended_run(build: Build) -> None:
    """If the write-ahead log is lost, ended runs are recovered from their directories."""
    harness = build()
    path = harness.state_dir / REGISTRY
    done = harness.ended(harness.submit("sh", "-c", "exit 3"))
    harness.kill()
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)
    allow(harness)
    harness.start()
    recovered = harness.ended(done["run_id"])
    assert {name: recovered[name] for name in EXACT} == {name: done[name] for name in EXACT}


def links(pid: int) -> str:
    """Return the targets of all open files of a process; files that are opened or closed meanwhile may be
    missing."""
    targets = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                targets.append(os.readlink(link))
    return " ".join(targets)


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
