"""The checks of `doctor`, called with facts: covers states that a test machine cannot have."""

from typing import Any

import pytest

from mosaicctl.doctor_checks import DISK_LOW_BYTES, WAL_LARGE_BYTES, judge
from mosaicctl.verbs import doctor

GIB = 1 << 30


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts of a healthy daemon with `changes`; `registry` and `disk` are merged."""
    registry = {
        "path": "/s/registry.sqlite3", "faults": [], "version": 2, "known_version": 2, "bytes": 1,
        "wal_bytes": 0, "newest_at": 999.0, "quarantine": [], "pruned_left": [],
        **changes.pop("registry", {}),
    }  # fmt: skip
    disk = {"free_bytes": 50 * GIB, "total_bytes": 99 * GIB, "free_inodes": 9, "total_inodes": 10}
    directories = {
        "unknown": [], "unknown_count": 0, "missing": [], "missing_count": 0, "held_after_end": [],
        "strays": [], "strays_count": 0,
    }  # fmt: skip
    inspection = {
        "registry": registry, "disk": {**disk, **changes.pop("disk", {})}, "directories": directories,
        "modes": [], "state_dir": "/s", "live_count": 0,
    }  # fmt: skip
    health = {"version": "1", "pid": 7, "ready": True, "socket": "/s/s", "quarantine": []}
    return {
        "version": "1", "health": health, "tried": [], "inspection": inspection, "trouble": "", "orphans": [],
        "now": 1000.0, "lingering": None, **changes,
    }  # fmt: skip


def levels(given: dict[str, Any]) -> dict[str, str]:
    """Return check -> level of the findings that are not ok."""
    return {finding["check"]: finding["level"] for finding in judge(given) if finding["level"] != "ok"}


def test_healthy_daemon_has_only_ok_findings() -> None:
    """A healthy daemon has one finding for each check, and all are ok."""
    assert levels(facts()) == {}
    assert len(judge(facts())) == len({finding["check"] for finding in judge(facts())}) == 12


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"registry": {"newest_at": 1059.0}}, {}),
        ({"registry": {"newest_at": 1061.0}}, {"clock": "warning"}),
        ({"registry": {"newest_at": 99_000.0}}, {"clock": "problem"}),
        ({"registry": {"newest_at": None}}, {}),
        ({"registry": {"wal_bytes": WAL_LARGE_BYTES + 1}}, {"wal": "warning"}),
        ({"registry": {"version": 3}}, {"versions": "problem"}),
        ({"registry": {"version": 1}}, {}),
        ({"version": "2"}, {"versions": "warning"}),
        ({"lingering": False}, {"lingering": "warning"}),
        ({"lingering": True}, {}),
        ({"disk": {"free_bytes": DISK_LOW_BYTES - 1}}, {"disk": "warning"}),
        ({"disk": {"free_bytes": 1 << 20}}, {"disk": "problem"}),
        ({"disk": {"free_bytes": 2 * GIB, "total_bytes": 9000 * GIB}}, {"disk": "warning"}),
        ({"disk": {"free_inodes": 0, "total_inodes": 1000}}, {"disk": "problem"}),
        ({"disk": {"free_inodes": 0, "total_inodes": 0}}, {}),
        ({"disk": {"error": "gone"}}, {"disk": "problem"}),
        ({"registry": {"pruned_left": ["X"]}}, {"directories": "warning"}),
        ({"registry": {"quarantine": [{"run_id": "X", "why": "y"}]}}, {"quarantine": "warning"}),
        ({"health": None, "tried": ["/s: refused"]}, {"daemon": "problem"}),
        ({"inspection": None, "trouble": "no"}, {"state": "problem"}),
    ],
)
def test_each_fact_leads_to_its_finding(changes: dict[str, Any], expected: dict[str, str]) -> None:
    """Each fact leads to exactly its finding, with the level, the meaning and the advice."""
    findings = judge(facts(**changes))
    assert {f["check"]: f["level"] for f in findings if f["level"] != "ok"} == expected
    assert all(f["means"] and f["do"] for f in findings if f["level"] != "ok")


def test_process_that_ended_with_its_run_is_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has ended at the second check is no orphan, though its run has ended meanwhile."""
    scans = [[{"pid": 7, "run_id": "X", "command": "a"}, {"pid": 8, "run_id": "X", "command": "b"}]]
    scans.append(scans[0][1:])
    monkeypatch.setattr(doctor, "marked_processes", lambda state_dir: scans.pop(0))

    class EndedRuns:
        def call(self, method: str, params: dict[str, str]) -> dict[str, str]:
            return {"state": "TERM"}

    gathered: dict[str, Any] = {"inspection": {"live": [], "state_dir": "/s"}}
    doctor._find_orphans(gathered, EndedRuns())  # type: ignore[arg-type]
    assert [orphan["pid"] for orphan in gathered["orphans"]] == [8]
