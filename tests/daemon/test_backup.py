"""Backup and restore: a consistent copy without a pause of the daemon; after a restore no run starts
twice."""

import json
import os
import sqlite3
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Conflict, InvalidParams, MosaicError
from tests.harness.daemon import DaemonHarness
from tests.harness.trouble import replay_differs
from tests.harness.waiting import wait_until

#: What a write may take while a copy is made; without one it takes a few milliseconds.
PATIENCE_S = 0.5
#: A copy that keeps writers waiting does so each time; a machine that stands still does not.
COPIES = 8


def backup(harness: DaemonHarness, name: str = "copy.sqlite3") -> Path:
    """A copy, made through the client."""
    target = harness.home / name
    done = harness.ctl("backup", str(target))
    assert done.returncode == 0, done.stderr
    return target


def restore(harness: DaemonHarness, copy: Path, *flags: str) -> dict[str, Any]:
    """The report of a restore that succeeds; the daemon is down."""
    done = harness.ctl("-o", "json", "restore", str(copy), "--state-dir", str(harness.state_dir), *flags)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def refused(harness: DaemonHarness, copy: Path) -> str:
    """What is said of a restore that is refused."""
    done = harness.ctl("restore", str(copy), "--state-dir", str(harness.state_dir))
    assert done.returncode == 5, done
    return done.stderr


def registry_of(harness: DaemonHarness) -> dict[str, bytes]:
    """Every byte of the registry and of what lies beside it."""
    return {path.name: path.read_bytes() for path in harness.state_dir.glob("registry*")}


def grow(harness: DaemonHarness, size_bytes: int) -> None:
    """Make the registry large, behind a daemon that is down."""
    connection = sqlite3.connect(harness.state_dir / "registry.sqlite3")
    connection.execute("CREATE TABLE ballast (filling BLOB)")
    connection.executemany("INSERT INTO ballast VALUES (randomblob(?))", [(1 << 20,)] * (size_bytes >> 20))
    connection.commit()
    connection.close()


def test_a_copy_is_of_one_moment(harness: DaemonHarness) -> None:
    """Made while runs come and go: one file, ours alone, whole, and its ledger leads to its rows."""
    over = threading.Event()

    def submit_on() -> None:
        while not over.is_set():
            harness.ended(harness.submit("true", dedup="new"))

    busy = threading.Thread(target=submit_on)
    busy.start()
    try:
        copies = [backup(harness, f"copy-{number}") for number in range(3)]
    finally:
        over.set()
        busy.join()
    for copy in copies:
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert replay_differs(copy) == []
        with sqlite3.connect(f"file:{copy}?mode=ro", uri=True) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not [path for path in harness.home.iterdir() if path.name.startswith(".copy")]


def test_writers_do_not_wait_for_a_backup(harness: DaemonHarness) -> None:
    """While 96 MiB are copied, requests that write are answered as if nothing were."""
    harness.stop()
    grow(harness, 96 << 20)
    harness.start()
    run_id = harness.submit("true", hold=True)
    seen = []
    for _ in range(COPIES):
        count, slowest = writes_during_a_copy(harness, run_id)
        if count > 10 and slowest < PATIENCE_S:
            return
        seen.append((count, slowest))
    raise AssertionError(f"writes and the slowest of them, copy by copy: {seen}")


def writes_during_a_copy(harness: DaemonHarness, run_id: str) -> tuple[int, float]:
    """How many writes were answered while a copy was made, and how long the slowest took."""
    with ThreadPoolExecutor(1) as pool, harness.client() as client:
        copying = pool.submit(harness.call, "daemon.backup", path=str(harness.home / "copy"), force=True)
        slowest, count = 0.0, 0
        while not copying.done():
            began = time.monotonic()
            client.call("run.set", {"run_id": run_id, "priority": count % 7 + 1})
            slowest, count = max(slowest, time.monotonic() - began), count + 1
        assert copying.result()["bytes"] > 96 << 20
    return count, slowest


def test_a_place_that_is_not_fit_is_refused(harness: DaemonHarness) -> None:
    """Never over a file that was not given up, a link or the registry itself; nothing half-written stays."""
    there = harness.home / "there"
    there.write_text("precious")
    link = harness.home / "link"
    link.symlink_to(there)
    folder = harness.home / "folder"
    folder.mkdir()
    cases: list[tuple[str, bool, type[MosaicError]]] = [
        (str(there), False, Conflict), (str(link), False, Conflict), (str(link), True, Conflict),
        (str(folder), True, Conflict), (str(harness.home / "no" / "where"), False, Conflict),
        ("relative", False, InvalidParams), (f"{harness.home}/", False, InvalidParams),
        (str(harness.state_dir / "registry.sqlite3"), True, InvalidParams),
        (str(harness.state_dir / "lock"), True, InvalidParams),
        (str(harness.state_dir / "backups" / ".." / "launch.key"), True, InvalidParams),
    ]  # fmt: skip
    for path, force, error in cases:
        with pytest.raises(error):
            harness.call("daemon.backup", path=path, force=force)
    assert there.read_text() == "precious" and link.is_symlink()
    assert {path.name for path in harness.home.iterdir()} >= {"there", "link", "folder"}
    assert not [path for path in harness.home.iterdir() if path.name.endswith(".part")]

    harness.call("daemon.backup", path=str(there), force=True)
    assert there.read_bytes().startswith(b"SQLite format 3")
    assert harness.call("daemon.backup", path=str(harness.state_dir / "backups" / "one"))["bytes"] > 0


def test_a_restore_beside_a_daemon_is_refused(harness: DaemonHarness) -> None:
    """With a daemon up nothing is changed, and the daemon is named."""
    copy = backup(harness)
    assert "already in use by mosaicd" in refused(harness, copy)
    assert harness.call("daemon.health")["ready"] and not (harness.state_dir / "set-aside").exists()


def test_what_is_no_good_copy_is_refused_untouched(harness: DaemonHarness) -> None:
    """Damaged, newer, another program's, not there: each is said, and the registry stays as it is."""
    harness.ended(harness.submit("true"))
    copy = backup(harness)
    harness.kill()
    whole = copy.read_bytes()
    before = registry_of(harness)

    def is_refused_for(content: bytes, why: str) -> None:
        copy.write_bytes(content)
        said = refused(harness, copy)
        assert why in said and "Traceback" not in said
        assert registry_of(harness) == before

    is_refused_for(whole[: len(whole) // 2], "")
    is_refused_for(whole[:8192] + os.urandom(8192) + whole[16384:], "")
    is_refused_for(b"not a database at all" * 100, "not a database")
    is_refused_for(b"", "not a registry of mosaicd")
    is_refused_for(whole[:60] + (999).to_bytes(4) + whole[64:], "version 999")
    copy.unlink()
    done = harness.ctl("restore", str(copy), "--state-dir", str(harness.state_dir))
    assert done.returncode == 2 and "No such file" in done.stderr
    harness.start()


def test_a_restore_sets_aside_and_gives_a_new_epoch(harness: DaemonHarness) -> None:
    """The registry from before is kept to the byte; a cursor from before is a conflict with the new epoch."""
    kept = harness.submit("true")
    harness.ended(kept)
    copy = backup(harness)
    later = harness.submit("true", dedup="new")
    harness.ended(later)
    old = harness.call("daemon.hello")
    harness.kill()
    before = registry_of(harness)
    report = restore(harness, copy)
    aside = Path(report["set_aside"])
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert report["unknown_directories"] == [later]
    harness.allow(Catalogue.REGISTRY_BEHIND)
    harness.start()

    hello = harness.call("daemon.hello")
    assert hello["epoch"] == report["epoch"] != old["epoch"]
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {kept, later}, "files tell of it"
    assert harness.ended(later)["outcome"] == "succeeded"
    for since in (0, 1, old["last_seq"]):
        with pytest.raises(Conflict) as caught:
            harness.call("run.watch", since=since, epoch=old["epoch"])
        assert caught.value.data["epoch"] == hello["epoch"]
    assert (harness.state_dir / "runs" / later / "attempt-1" / "exit.json").exists(), (
        "results are not touched"
    )

    harness.kill()
    assert restore(harness, aside / "registry.sqlite3")["unknown_directories"] == []
    harness.start()
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {kept, later}, "and back again"


def test_a_watcher_over_a_restore_is_told_to_begin_anew(harness: DaemonHarness) -> None:
    """`mosaicctl watch` that had a cursor says that the history is another one, and goes on from now."""
    copy = backup(harness)
    harness.ended(harness.submit("true"))
    gate = harness.home / "gate"
    with open(harness.home / "seen", "wb") as out:
        command = harness.ctl_command("watch", "--since", "0")
        watching = subprocess.Popen(command, stdout=out, stderr=out, env=harness.environment)
    try:
        seen = harness.home / "seen"
        wait_until(seen.read_text, lambda text: "succeeded" in text, "the watcher has a cursor")
        harness.kill()
        restore(harness, copy)
        harness.allow(Catalogue.REGISTRY_BEHIND)
        harness.start()
        wait_until(seen.read_text, lambda text: "restored" in text, "it is told")
        gate.touch()
        harness.ended(harness.submit("true", name="afterwards"))
        wait_until(seen.read_text, lambda text: "afterwards" in text, "it goes on")
    finally:
        watching.terminate()
        watching.wait()


def test_nothing_starts_twice_after_a_restore(harness: DaemonHarness) -> None:
    """Live in the copy: one works on, one began since and has its end, one waits still and is held."""
    gate, starts = harness.home / "gate", harness.home / "starts"
    works, filler = harness.program("ticker", str(gate)), harness.submit("sleep", "60")
    harness.until(works, "EXEC"), harness.until(filler, "EXEC")
    mark = f"echo $MOSAIC_RUN_ID >> {starts}; exit 4"
    began, waits = (harness.submit("sh", "-c", mark, name=name, dedup="new") for name in ("began", "waits"))
    copy = backup(harness)
    harness.call("run.hold", run_id=waits)
    harness.call("run.stop", run_id=filler, grace_s=0)
    assert harness.ended(began)["exit_code"] == 4
    assert harness.ended(filler)["outcome"] == "cancelled"
    harness.kill()
    report = restore(harness, copy)
    assert report["held"] == [waits]
    assert sorted(report["as_found"]) == sorted([works, filler, began])
    harness.allow(Catalogue.REGISTRY_BEHIND)
    harness.start()

    again = harness.ended(began)
    assert (again["outcome"], again["exit_code"]) == ("failed", 4), "its exact end is in its files"
    assert harness.ended(filler)["signal"] == 9, "its exact end is in its files"
    assert (harness.get(waits)["state"], harness.get(waits)["held"]) == ("INIT", True)
    harness.call("run.release", run_id=waits)
    assert harness.ended(waits)["exit_code"] == 4
    gate.touch()
    assert harness.ended(works)["exit_code"] == 7 and harness.get(works)["attempt"] == 1
    assert starts.read_text().split() == [began, waits], "each began once"


def test_a_run_that_the_copy_does_not_know_goes_on(harness: DaemonHarness) -> None:
    """A restore orphans nobody: the report names who works, the doctor says that the next start takes it up,
    and that start does, with the same process and the exact end."""
    harness.allow(Catalogue.REGISTRY_BEHIND)
    copy = backup(harness)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    before = harness.until(run_id, "EXEC")
    harness.kill()
    report = restore(harness, copy)
    assert report["at_work"] == report["unknown_directories"] == [run_id]
    said = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.state_dir)).stdout
    found = json.loads(said)["findings"]
    levels = {finding["check"]: finding["level"] for finding in found}
    assert levels["orphans"] == "ok" and levels["shims"] == levels["directories"] == "warning"
    harness.start()
    now = harness.until(run_id, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_what_never_began_since_the_copy_is_held(harness: DaemonHarness) -> None:
    """A run that the copy lacks is recovered and held; it starts when its user releases it."""
    harness.allow(Catalogue.REGISTRY_BEHIND)
    copy = backup(harness)
    harness.kill()
    harness.configure({"cpus": {"slots": 1}})
    harness.start()
    filler = harness.submit("sleep", "60")
    harness.until(filler, "EXEC")
    run_id = harness.submit("true")
    harness.kill()
    report = restore(harness, copy)
    assert sorted(report["unknown_directories"]) == sorted([filler, run_id])
    harness.start()
    assert (harness.get(run_id)["state"], harness.get(run_id)["held"]) == ("INIT", True)
    assert harness.get(filler)["state"] == "EXEC"
    harness.call("run.stop", run_id=filler, grace_s=0)
    harness.ended(filler)
    harness.call("run.release", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "succeeded"
