"""The doctor's judgement, from facts alone: what cannot be brought about on the machine that tests run on."""

from typing import Any

import pytest

from mosaicctl.doctor_checks import DISK_LOW_BYTES, WAL_LARGE_BYTES, judge
from mosaicctl.verbs import doctor

GIB = 1 << 30


def facts(**changes: Any) -> dict[str, Any]:
    """The facts of a healthy daemon; `registry` and `disk` are merged into their places."""
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


def levels(found: dict[str, Any]) -> dict[str, str]:
    """Check -> level of what is not ok."""
    return {finding["check"]: finding["level"] for finding in judge(found) if finding["level"] != "ok"}


def test_a_healthy_daemon() -> None:
    """No finding but ok ones, one for each check."""
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
def test_a_finding(changes: dict[str, Any], expected: dict[str, str]) -> None:
    """Each fact leads to its finding at its level, says what it means and what to do, and to no other."""
    found = judge(facts(**changes))
    assert {f["check"]: f["level"] for f in found if f["level"] != "ok"} == expected
    assert all(f["means"] and f["do"] for f in found if f["level"] != "ok")


def test_who_ended_with_its_run_is_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began after the registry was read may end before it is asked about, processes and all."""
    looks = [[{"pid": 7, "run_id": "X", "command": "a"}, {"pid": 8, "run_id": "X", "command": "b"}]]
    looks.append(looks[0][1:])
    monkeypatch.setattr(doctor, "marked", lambda state_dir: looks.pop(0))

    class Told:
        def call(self, method: str, params: dict[str, str]) -> dict[str, str]:
            return {"state": "TERM"}

    found: dict[str, Any] = {"inspection": {"live": [], "state_dir": "/s"}}
    doctor._processes(found, Told())  # type: ignore[arg-type]
    assert [one["pid"] for one in found["orphans"]] == [8]
