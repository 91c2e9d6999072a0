"""`mosaicctl doctor` finds problems with or without a daemon, says what to do, and makes the safe repairs."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mosaicctl import doctor_checks
from mosaicd.log import Catalogue
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until
from tests.store.test_quarantine import damage_file

#: An incomplete file of this age is not in use any more.
LONG_AGO = time.time() - 86400


def examine(harness: DaemonHarness, *flags: str) -> tuple[int, dict[str, Any], list[str]]:
    """Run the doctor; return its exit code, the findings that are not ok by check, and the fixes."""
    done = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.state_dir), *flags)
    report = json.loads(done.stdout)
    assert report["healthy"] == (done.returncode == 0), done
    problems: dict[str, Any] = {}
    for finding in report["findings"]:
        assert {"check", "level", "found", "means", "do"} == finding.keys()
        if finding["level"] != "ok":
            assert finding["means"] and finding["do"], finding
            problems.setdefault(finding["check"], []).append(finding)
    return done.returncode, problems, report["fixed"]


def test_doctor_reports_a_healthy_daemon(harness: DaemonHarness) -> None:
    """With live, held and ended runs every check is made, all are ok, and the exit code is 0."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.wait_until_cleaned_up(run_id)
    harness.until(harness.submit("sleep", "60"), "EXEC")
    harness.submit("true", hold=True)
    done = harness.ctl("-o", "json", "doctor")
    report = json.loads(done.stdout)
    assert (done.returncode, report["healthy"], report["fixed"]) == (0, True, [])
    checks = {"daemon", *(name for name in doctor_checks._NAMES.values())}
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert levels == dict.fromkeys(checks, "ok")
    assert {line.split()[0] for line in harness.ctl("doctor").stdout.splitlines()[:-1]} == {"ok"}


def test_doctor_works_without_a_daemon(harness: DaemonHarness) -> None:
    """After a kill of the daemon, `daemon` is the only problem, all other checks are made, and no file
    changes."""
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    harness.kill()
    registry = harness.state_dir / "registry.sqlite3"
    files = (registry, Path(f"{registry}-wal"))  # the -shm file is SQLite's shared memory and may change
    before = [path.read_bytes() for path in files]
    code, found, _ = examine(harness, "--fix")
    assert (code, list(found)) == (1, ["daemon"])
    assert [path.read_bytes() for path in files] == before
    harness.start()
    assert examine(harness)[0] == 0


def test_doctor_makes_no_file_after_an_orderly_stop(harness: DaemonHarness) -> None:
    """The doctor makes no file beside a registry that was closed in order."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.wait_until_cleaned_up(run_id)
    harness.stop()
    before = sorted(path.name for path in harness.state_dir.iterdir())
    assert list(examine(harness)[1]) == ["daemon"]
    assert sorted(path.name for path in harness.state_dir.iterdir()) == before


def test_a_state_directory_that_does_not_exist(harness: DaemonHarness) -> None:
    """A state directory that does not exist is no damage; unreadable settings are a problem that names the
    file."""
    harness.stop()
    done = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.home / "never"))
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["registry"]["level"] == "ok" and found["daemon"]["level"] == "problem"
    done = harness.ctl("-o", "json", "doctor", "--config", str(harness.home / "missing.toml"))
    [state] = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "state"]
    assert done.returncode == 1 and "missing.toml" in state["found"]


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_doctor_finds_and_fixes_permissions_open_to_others(harness: DaemonHarness, is_up: bool) -> None:
    """Write permission for others on the key, the registry, the state directory or a run's environment is
    reported, and removed by --fix."""
    run_id = harness.submit("true", hold=True)
    ended = harness.submit("true", caller_environment={"A": "1"}, environment={"B": "1"})
    harness.ended(ended)
    secret = harness.state_dir / "runs" / ended / "environment.json"
    wait_until(secret.exists, lambda there: not there, "the environment of the ended run is removed")
    paths = [harness.state_dir / "launch.key", harness.state_dir / "registry.sqlite3", harness.state_dir,
             harness.state_dir / "runs" / run_id / "environment.json",
             harness.state_dir / "runs" / ended / "given-environment.json",
             harness.state_dir / "runs" / ended / "caller-environment.json"]  # fmt: skip
    if not is_up:
        harness.kill()
    for path in paths:
        path.chmod(path.stat().st_mode | 0o022)
    if is_up:
        harness.socket.chmod(0o666)
        paths.append(harness.socket)

    code, found, _ = examine(harness)
    assert code == 1 and len(found["permissions"]) == len(paths)
    assert all(path.stat().st_mode & 0o022 for path in paths), "without --fix nothing changes"
    _, found, fixed = examine(harness, "--fix")
    assert "permissions" not in found and len(fixed) == len(paths)
    assert not any(path.stat().st_mode & 0o022 for path in paths)
    assert "permissions" not in examine(harness)[1]
    if not is_up:
        harness.start()


def test_doctor_removes_leftovers_and_never_results(harness: DaemonHarness) -> None:
    """--fix removes the environment of an ended run and old incomplete files; unknown directories stay."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    runs = harness.state_dir / "runs"
    secret = runs / run_id / "environment.json"
    harness.wait_until_cleaned_up(run_id)
    secret.write_text("{}")
    half, fresh = runs / run_id / "attempt-1" / "exit.json.tmp", runs / run_id / "attempt-1" / "x.tmp"
    for path in (half, fresh):
        path.write_text("{")
    os.utime(half, (LONG_AGO, LONG_AGO))
    unknown = runs / "01ARZ3NDEKTSV4RRFFQ69G5FAV" / "attempt-1"
    unknown.mkdir(parents=True)

    code, found, _ = examine(harness)
    assert code == 0, "these are warnings only"
    assert len(found["directories"]) == 2
    assert secret.exists() and half.exists()
    _, found, fixed = examine(harness, "--fix")
    assert len(found["directories"]) == 1 and unknown.parent.name in found["directories"][0]["found"]
    assert not secret.exists() and not half.exists() and len(fixed) == 2
    assert fresh.exists() and unknown.exists(), "files that may hold results are kept"
    unknown.rmdir()
    unknown.parent.rmdir()


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_doctor_reports_orphans_and_ends_none(harness: DaemonHarness, is_up: bool) -> None:
    """A process with the marker of an ended run is reported with its pid, and not ended; the marker of
    another state directory is ignored."""
    run_id = harness.submit("true")
    harness.ended(run_id)

    def stray(state_dir: Path) -> "subprocess.Popen[bytes]":
        marks = {"MOSAIC_RUN_ID": run_id, "MOSAIC_RUN_DIR": f"{state_dir}/runs/{run_id}/files"}
        return subprocess.Popen(["sleep", "60"], env={**os.environ, **marks})

    ours, theirs = stray(harness.state_dir), stray(harness.home / "other")
    try:
        if not is_up:
            harness.kill()
        code, found, _ = examine(harness, "--fix")
        [orphans] = found["orphans"]
        assert code == 1 and orphans["level"] == "problem"
        assert orphans["do"].endswith(f"kill {ours.pid}"), "no pid of another state directory"
        assert ours.poll() is None and theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()
    assert "orphans" not in examine(harness)[1]


def test_a_live_runs_processes_are_no_orphans(harness: DaemonHarness) -> None:
    """The processes of a live run are never reported as orphans."""
    for _ in range(3):
        run_id = harness.submit("sh", "-c", "sleep 60 & sleep 60", dedup="new")
        harness.until(run_id, "EXEC")
        assert "orphans" not in examine(harness)[1]
        harness.call("run.stop", run_id=run_id, grace_s=0)


def test_doctor_reports_a_damaged_registry_and_changes_nothing(harness: DaemonHarness) -> None:
    """Damaged pages are a problem that names the file and `restore`; no byte of it changes."""
    for _ in range(40):
        harness.submit("true", hold=True, dedup="new", labels={"x": "y" * 200})
    harness.stop()
    registry = harness.state_dir / "registry.sqlite3"
    intact = registry.read_bytes()
    registry.write_bytes(intact[:8192] + os.urandom(16384) + intact[24576:])
    damaged = registry.read_bytes()
    code, found, _ = examine(harness, "--fix")
    assert code == 1 and str(registry) in found["registry"][0]["found"]
    assert "restore" in found["registry"][0]["do"]
    assert registry.read_bytes() == damaged
    assert len(list((harness.state_dir / "runs").iterdir())) == 40, "no run directory is removed"
    registry.write_bytes(intact)
    harness.start()


def test_doctor_reports_a_quarantined_record(harness: DaemonHarness) -> None:
    """A record that the daemon quarantined is a warning with the run and the reason."""
    harness.allow(Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    run_id = harness.submit("true", hold=True)
    harness.stop()
    damage_file(
        harness.state_dir / "registry.sqlite3", "UPDATE runs SET body = '{' WHERE run_id = :id", id=run_id
    )
    harness.run_ids.discard(run_id)
    harness.start()
    code, found, _ = examine(harness)
    assert code == 0 and found["quarantine"][0]["level"] == "warning"
    assert run_id in found["quarantine"][0]["found"]


def test_a_live_run_without_a_directory_is_a_problem(harness: DaemonHarness) -> None:
    """If the directory of a live run was removed by hand, the problem names the run and what to do."""
    run_id = harness.submit("true", hold=True)
    (harness.state_dir / "runs" / run_id).rename(harness.home / "taken")
    code, found, _ = examine(harness)
    assert code == 1 and run_id in found["shims"][0]["do"]
    (harness.home / "taken").rename(harness.state_dir / "runs" / run_id)


def test_the_text_says_what_to_do(harness: DaemonHarness) -> None:
    """The text has one line for each finding, below it what it means and what to do, and a last line with the
    counts."""
    (harness.state_dir / "launch.key").chmod(0o644)
    done = harness.ctl("doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    at = next(n for n, line in enumerate(lines) if line.startswith("problem  permissions"))
    assert re.search(r"> --fix, or: chmod 0600 .*launch.key", lines[at + 2])
    assert lines[-1] == "1 problem, 0 warnings"
    assert harness.ctl("-o", "name", "doctor").stdout == "permissions\n"
    assert "fixed: chmod 0600" in harness.ctl("doctor", "--fix").stdout
