"""Backup and restore: the copy is consistent and does not pause the daemon; after a restore no run starts
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

#: Limit for a write during a backup; without a backup a write takes a few milliseconds.
WRITE_LIMIT_S = 0.5
#: A backup that blocks writers fails in all of so many copies; a slow machine only in some.
COPIES = 8


def backup(harness: DaemonHarness, name: str = "copy.sqlite3") -> Path:
    """Make a backup through the client; return its path."""
    target = harness.home / name
    done = harness.ctl("backup", str(target))
    assert done.returncode == 0, done.stderr
    return target


def restore(harness: DaemonHarness, copy: Path, *flags: str) -> dict[str, Any]:
    """Restore a copy while the daemon is down; return the report."""
    done = harness.ctl("-o", "json", "restore", str(copy), "--state-dir", str(harness.state_dir), *flags)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def refused(harness: DaemonHarness, copy: Path) -> str:
    """Return the error text of a restore that is refused."""
    done = harness.ctl("restore", str(copy), "--state-dir", str(harness.state_dir))
    assert done.returncode == 5, done
    return done.stderr


def registry_of(harness: DaemonHarness) -> dict[str, bytes]:
    """Return the contents of the registry files (database, WAL, mark, lock) by name."""
    return {path.name: path.read_bytes() for path in harness.state_dir.glob("registry*")}


def grow(harness: DaemonHarness, size_bytes: int) -> None:
    """Add `size_bytes` to the registry while the daemon is down."""
    connection = sqlite3.connect(harness.state_dir / "registry.sqlite3")
    connection.execute("CREATE TABLE ballast (filling BLOB)")
    connection.executemany("INSERT INTO ballast VALUES (randomblob(?))", [(1 << 20,)] * (size_bytes >> 20))
    connection.commit()
    connection.close()


def test_a_backup_is_consistent(harness: DaemonHarness) -> None:
    """A backup made while runs start and end is one private file, passes the integrity check, and its ledger
    gives its rows."""
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
    """While a registry of 96 MiB is copied, requests that write are answered without delay."""
    harness.stop()
    grow(harness, 96 << 20)
    harness.start()
    run_id = harness.submit("true", hold=True)
    measured = []
    for _ in range(COPIES):
        count, slowest = writes_during_a_copy(harness, run_id)
        if count > 10 and slowest < WRITE_LIMIT_S:
            return
        measured.append((count, slowest))
    raise AssertionError(f"writes and the slowest of them, copy by copy: {measured}")


def writes_during_a_copy(harness: DaemonHarness, run_id: str) -> tuple[int, float]:
    """Return how many writes were answered during a backup, and the seconds of the slowest."""
    with ThreadPoolExecutor(1) as pool, harness.client() as client:
        copying = pool.submit(harness.call, "daemon.backup", path=str(harness.home / "copy"), force=True)
        slowest, count = 0.0, 0
        while not copying.done():
            began = time.monotonic()
            client.call("run.set", {"run_id": run_id, "priority": count % 7 + 1})
            slowest, count = max(slowest, time.monotonic() - began), count + 1
        assert copying.result()["bytes"] > 96 << 20
    return count, slowest


def test_a_backup_overwrites_no_file_without_force(harness: DaemonHarness) -> None:
    """A backup refuses an existing file without --force, a link, a directory and the registry's own files; no
    partial file remains."""
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


def test_a_restore_while_a_daemon_runs_is_refused(harness: DaemonHarness) -> None:
    """While a daemon runs, `restore` changes nothing, and the error names the daemon."""
    copy = backup(harness)
    assert "already in use by mosaicd" in refused(harness, copy)
    assert harness.call("daemon.health")["ready"] and not (harness.state_dir / "set-aside").exists()


def test_a_restore_refuses_an_invalid_copy(harness: DaemonHarness) -> None:
    """A copy that is damaged, newer, of another program or missing is refused with the reason; the registry
    stays as it is."""
    harness.ended(harness.submit("true"))
    copy = backup(harness)
    harness.kill()
    intact = copy.read_bytes()
    before = registry_of(harness)

    def check_refused(content: bytes, why: str) -> None:
        copy.write_bytes(content)
        error = refused(harness, copy)
        assert why in error and "Traceback" not in error
        assert registry_of(harness) == before

    check_refused(intact[: len(intact) // 2], "")
    check_refused(intact[:8192] + os.urandom(8192) + intact[16384:], "")
    check_refused(b"not a database at all" * 100, "not a database")
    check_refused(b"", "not a registry of mosaicd")
    check_refused(intact[:60] + (999).to_bytes(4) + intact[64:], "version 999")
    copy.unlink()
    done = harness.ctl("restore", str(copy), "--state-dir", str(harness.state_dir))
    assert done.returncode == 2 and "No such file" in done.stderr
    harness.start()


def test_a_restore_keeps_the_previous_registry_and_makes_a_new_epoch(harness: DaemonHarness) -> None:
    """The previous registry is kept byte for byte, the epoch is new, and a cursor with the old epoch is a
    conflict."""
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
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {kept, later}, (
        "recovered from its directory"
    )
    assert harness.ended(later)["outcome"] == "succeeded"
    for since in (0, 1, old["last_seq"]):
        with pytest.raises(Conflict) as caught:
            harness.call("run.watch", since=since, epoch=old["epoch"])
        assert caught.value.data["epoch"] == hello["epoch"]
    assert (harness.state_dir / "runs" / later / "attempt-1" / "exit.json").exists(), (
        "the restore changes no results"
    )

    harness.kill()
    assert restore(harness, aside / "registry.sqlite3")["unknown_directories"] == []
    harness.start()
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {kept, later}, (
        "the previous registry can be restored"
    )


def test_a_watcher_reports_a_restore_and_continues(harness: DaemonHarness) -> None:
    """`mosaicctl watch` with a cursor from before a restore reports the new history and continues from
    now."""
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
        wait_until(seen.read_text, lambda text: "restored" in text, "the watcher reports the restore")
        gate.touch()
        harness.ended(harness.submit("true", name="afterwards"))
        wait_until(seen.read_text, lambda text: "afterwards" in text, "the watcher continues")
    finally:
        watching.terminate()
        watching.wait()


def test_no_run_starts_twice_after_a_restore(harness: DaemonHarness) -> None:
    """After a restore, a live run continues, an ended run gets its end from its files, and a waiting run is
    held."""
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
    assert (again["outcome"], again["exit_code"]) == ("failed", 4), "read from its files"
    assert harness.ended(filler)["signal"] == 9, "read from its files"
    assert (harness.get(waits)["state"], harness.get(waits)["held"]) == ("INIT", True)
    harness.call("run.release", run_id=waits)
    assert harness.ended(waits)["exit_code"] == 4
    gate.touch()
    assert harness.ended(works)["exit_code"] == 7 and harness.get(works)["attempt"] == 1
    assert starts.read_text().split() == [began, waits], "each run started once"


def test_a_live_run_that_the_copy_lacks_continues(harness: DaemonHarness) -> None:
    """A restore orphans no run: the report names a live run that the copy lacks, the doctor warns, and the
    next start recovers the run with its process and exact end."""
    harness.allow(Catalogue.REGISTRY_BEHIND)
    copy = backup(harness)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    before = harness.until(run_id, "EXEC")
    harness.kill()
    report = restore(harness, copy)
    assert report["at_work"] == report["unknown_directories"] == [run_id]
    report_text = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.state_dir)).stdout
    findings = json.loads(report_text)["findings"]
    levels = {finding["check"]: finding["level"] for finding in findings}
    assert levels["orphans"] == "ok" and levels["shims"] == levels["directories"] == "warning"
    harness.start()
    now = harness.until(run_id, "EXEC")
    assert (now["pid"], now["attempt"]) == (before["pid"], 1)
    gate.touch()
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_waiting_run_that_the_copy_lacks_is_held(harness: DaemonHarness) -> None:
    """A waiting run that the copy lacks is recovered and held; it starts when its user releases it."""
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
