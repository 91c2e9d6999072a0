"""The doctor: finds problems with or without a daemon, says what to do, and makes the safe repairs."""

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
from tests.store.test_quarantine import spoil

#: So long ago that an incomplete file cannot be in use any more.
LONG_AGO = time.time() - 86400


def examine(harness: DaemonHarness, *flags: str) -> tuple[int, dict[str, Any], list[str]]:
    """Exit code, check -> the findings that are not ok, and what was fixed."""
    done = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.state_dir), *flags)
    report = json.loads(done.stdout)
    assert report["healthy"] == (done.returncode == 0), done
    found: dict[str, Any] = {}
    for finding in report["findings"]:
        assert {"check", "level", "found", "means", "do"} == finding.keys()
        if finding["level"] != "ok":
            assert finding["means"] and finding["do"], finding
            found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found, report["fixed"]


def test_a_healthy_daemon_is_said_to_be(harness: DaemonHarness) -> None:
    """With live, held and ended runs every check is made, all are ok, and the exit code is 0."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.put_away(run_id)
    harness.until(harness.submit("sleep", "60"), "EXEC")
    harness.submit("true", hold=True)
    done = harness.ctl("-o", "json", "doctor")
    report = json.loads(done.stdout)
    assert (done.returncode, report["healthy"], report["fixed"]) == (0, True, [])
    checks = {"daemon", *(name for name in doctor_checks._NAMES.values())}
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert levels == dict.fromkeys(checks, "ok")
    assert {line.split()[0] for line in harness.ctl("doctor").stdout.splitlines()[:-1]} == {"ok"}


def test_it_works_without_a_daemon(harness: DaemonHarness) -> None:
    """Killed in the middle of work: the daemon is the one problem, and all else is looked at all the same."""
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    harness.kill()
    registry = harness.state_dir / "registry.sqlite3"
    files = (registry, Path(f"{registry}-wal"))  # what is beside them is SQLite's shared memory
    before = [path.read_bytes() for path in files]
    code, found, _ = examine(harness, "--fix")
    assert (code, list(found)) == (1, ["daemon"])
    assert [path.read_bytes() for path in files] == before
    harness.start()
    assert examine(harness)[0] == 0


def test_after_an_orderly_stop_it_leaves_no_trace(harness: DaemonHarness) -> None:
    """Looking at a registry that was closed well makes no file beside it."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.put_away(run_id)
    harness.stop()
    before = sorted(path.name for path in harness.state_dir.iterdir())
    assert list(examine(harness)[1]) == ["daemon"]
    assert sorted(path.name for path in harness.state_dir.iterdir()) == before


def test_a_state_directory_that_never_was(harness: DaemonHarness) -> None:
    """Nothing there yet is no damage; settings that cannot be read are said in mosaicd's own words."""
    harness.stop()
    done = harness.ctl("-o", "json", "doctor", "--state-dir", str(harness.home / "never"))
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["registry"]["level"] == "ok" and found["daemon"]["level"] == "problem"
    done = harness.ctl("-o", "json", "doctor", "--config", str(harness.home / "missing.toml"))
    [state] = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "state"]
    assert done.returncode == 1 and "missing.toml" in state["found"]


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_what_is_open_to_others_is_found_and_closed(harness: DaemonHarness, is_up: bool) -> None:
    """Key, registry, state directory and a waiting run's environment: told, and closed by --fix."""
    run_id = harness.submit("true", hold=True)
    places = [harness.state_dir / "launch.key", harness.state_dir / "registry.sqlite3", harness.state_dir,
              harness.state_dir / "runs" / run_id / "environment.json"]  # fmt: skip
    if not is_up:
        harness.kill()
    for place in places:
        place.chmod(place.stat().st_mode | 0o022)
    if is_up:
        harness.socket.chmod(0o666)
        places.append(harness.socket)

    code, found, _ = examine(harness)
    assert code == 1 and len(found["permissions"]) == len(places)
    assert all(place.stat().st_mode & 0o022 for place in places), "looking changes nothing"
    _, found, fixed = examine(harness, "--fix")
    assert "permissions" not in found and len(fixed) == len(places)
    assert not any(place.stat().st_mode & 0o022 for place in places)
    assert "permissions" not in examine(harness)[1]
    if not is_up:
        harness.start()


def test_what_is_left_over_is_found_and_results_are_never_touched(harness: DaemonHarness) -> None:
    """--fix removes an ended run's environment and old half-written files; unknown directories stay."""
    run_id = harness.submit("true")
    harness.ended(run_id)
    runs = harness.state_dir / "runs"
    secret = runs / run_id / "environment.json"
    harness.put_away(run_id)
    secret.write_text("{}")
    half, fresh = runs / run_id / "attempt-1" / "exit.json.tmp", runs / run_id / "attempt-1" / "x.tmp"
    for path in (half, fresh):
        path.write_text("{")
    os.utime(half, (LONG_AGO, LONG_AGO))
    unknown = runs / "01ARZ3NDEKTSV4RRFFQ69G5FAV" / "attempt-1"
    unknown.mkdir(parents=True)

    code, found, _ = examine(harness)
    assert code == 0, "nothing of this is a problem"
    assert len(found["directories"]) == 2
    assert secret.exists() and half.exists()
    _, found, fixed = examine(harness, "--fix")
    assert len(found["directories"]) == 1 and unknown.parent.name in found["directories"][0]["found"]
    assert not secret.exists() and not half.exists() and len(fixed) == 2
    assert fresh.exists() and unknown.exists(), "files that may hold results are kept"
    unknown.rmdir()
    unknown.parent.rmdir()


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_orphans_are_found_and_never_touched(harness: DaemonHarness, is_up: bool) -> None:
    """A process with an ended run's marker is told with its pid; another state directory's is not ours."""
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
        assert orphans["do"].endswith(f"kill {ours.pid}"), "ours alone"
        assert ours.poll() is None and theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()
    assert "orphans" not in examine(harness)[1]


def test_a_live_runs_processes_are_no_orphans(harness: DaemonHarness) -> None:
    """While runs come and go, what works is never called an orphan."""
    for _ in range(3):
        run_id = harness.submit("sh", "-c", "sleep 60 & sleep 60", dedup="new")
        harness.until(run_id, "EXEC")
        assert "orphans" not in examine(harness)[1]
        harness.call("run.stop", run_id=run_id, grace_s=0)


def test_a_damaged_registry_is_said_and_left_as_it_is(harness: DaemonHarness) -> None:
    """Overwritten pages: a problem that names the file and the way back; not a byte is changed."""
    for _ in range(40):
        harness.submit("true", hold=True, dedup="new", labels={"x": "y" * 200})
    harness.stop()
    registry = harness.state_dir / "registry.sqlite3"
    content = registry.read_bytes()
    registry.write_bytes(content[:8192] + os.urandom(16384) + content[24576:])
    spoilt = registry.read_bytes()
    code, found, _ = examine(harness, "--fix")
    assert code == 1 and str(registry) in found["registry"][0]["found"]
    assert "restore" in found["registry"][0]["do"]
    assert registry.read_bytes() == spoilt
    assert len(list((harness.state_dir / "runs").iterdir())) == 40, "run directories are not judged by it"
    registry.write_bytes(content)
    harness.start()


def test_a_record_that_is_set_aside_is_told(harness: DaemonHarness) -> None:
    """What the daemon could not read and put into quarantine is a warning with the run and the reason."""
    harness.allow(Catalogue.ROW_QUARANTINED, Catalogue.SLOTS_WITHHELD)
    run_id = harness.submit("true", hold=True)
    harness.stop()
    spoil(harness.state_dir / "registry.sqlite3", "UPDATE runs SET body = '{' WHERE run_id = :id", id=run_id)
    harness.run_ids.discard(run_id)
    harness.start()
    code, found, _ = examine(harness)
    assert code == 0 and found["quarantine"][0]["level"] == "warning"
    assert run_id in found["quarantine"][0]["found"]


def test_a_live_run_without_a_directory_is_a_problem(harness: DaemonHarness) -> None:
    """A directory that was removed by hand is reported with its run and what to do."""
    run_id = harness.submit("true", hold=True)
    (harness.state_dir / "runs" / run_id).rename(harness.home / "taken")
    code, found, _ = examine(harness)
    assert code == 1 and run_id in found["shims"][0]["do"]
    (harness.home / "taken").rename(harness.state_dir / "runs" / run_id)


def test_the_text_says_what_to_do(harness: DaemonHarness) -> None:
    """For people: a line a finding, what it means and what to do under it, and a last line that counts."""
    (harness.state_dir / "launch.key").chmod(0o644)
    done = harness.ctl("doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    at = next(n for n, line in enumerate(lines) if line.startswith("problem  permissions"))
    assert re.search(r"> --fix, or: chmod 0600 .*launch.key", lines[at + 2])
    assert lines[-1] == "1 problem, 0 warnings"
    assert harness.ctl("-o", "name", "doctor").stdout == "permissions\n"
    assert "fixed: chmod 0600" in harness.ctl("doctor", "--fix").stdout
