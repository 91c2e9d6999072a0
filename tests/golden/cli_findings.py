"""The findings of `mosaicctl doctor`: each check, ok and not."""

from typing import Any

from mosaicctl.doctor_checks import DISK_LOW_BYTES, WAL_LARGE_BYTES, judge
from mosaicctl.verbs.doctor import describe
from tests.ctl.test_doctor_checks import facts
from tests.golden.stage import Stage

UNKNOWN = [{"name": "01X", "is_held": True}, {"name": "01Y", "is_held": False}]
LEFT = [{"path": "/s/runs/01X/environment.json", "why": "the run has ended"}]

#: Changes of the facts of a healthy daemon, each with its findings.
CHANGES: tuple[dict[str, Any], ...] = (
    {"inspection": None, "trouble": "permission denied"},
    {"health": None, "tried": ["/s/s: Connection refused"]},
    {"health": {"version": "1", "pid": 7, "ready": False, "socket": "/s/s", "quarantine": []}},
    {"version": "2"},
    {"registry": {"version": 3}},
    {"registry": {"faults": ["page 7 is damaged"]}},
    {"registry": {"faults": ["no registry yet"]}},
    {"registry": {"wal_bytes": WAL_LARGE_BYTES + 1}},
    {"registry": {"quarantine": [{"run_id": "01X", "why": "its state is not valid"}]}},
    {"registry": {"pruned_left": ["01X"]}},
    {"registry": {"newest_at": 1061.0}},
    {"disk": {"free_bytes": DISK_LOW_BYTES - 1}},
    {"disk": {"error": "No such file or directory"}},
    {"orphans": [{"pid": 8, "run_id": "01X", "command": "python train.py"}]},
    {"lingering": False},
)

#: Changes of the inspection.
INSPECTED: tuple[dict[str, Any], ...] = (
    {"modes": [{"path": "/s/key", "is_ours": False, "owner_uid": 7, "mode": "0600", "wanted": "0600"}]},
    {"modes": [{"path": "/s/key", "is_ours": True, "owner_uid": 0, "mode": "0644", "wanted": "0600"}]},
    {"directories": {"unknown": UNKNOWN, "unknown_count": 2}},
    {"directories": {"held_after_end": ["01X"]}},
    {"directories": {"missing": ["01X"], "missing_count": 1}},
    {"directories": {"strays": LEFT, "strays_count": 1}},
)


def findings(stage: Stage) -> None:
    """Every finding, once; first the report of a healthy daemon."""
    stage.title("doctor: the findings")
    stage.lines(_lines([facts(lingering=True)]))
    stage.lines(_lines([facts(**changes) for changes in CHANGES], with_ok=False))
    stage.lines(_lines([_inspected(**changes) for changes in INSPECTED], with_ok=False))
    without = {
        **_inspected(directories={"unknown": UNKNOWN, "unknown_count": 2}),
        "health": None,
        "tried": ["/s/s"],
    }
    stage.lines(_lines([without], with_ok=False))
    warned = facts()
    warned["health"]["warnings"] = ["a sentence [LOG2101]"]
    stage.lines(_lines([warned], with_ok=False))


def _inspected(**changes: Any) -> dict[str, Any]:
    found = facts()
    for name, value in changes.items():
        place = found["inspection"]
        place[name] = {**place[name], **value} if isinstance(value, dict) else value
    return found


def _lines(many: list[dict[str, Any]], with_ok: bool = True) -> list[str]:
    lines = []
    for one in many:
        found = [finding for finding in judge(one) if with_ok or finding["level"] != "ok"]
        lines += describe({"findings": found, "fixed": []}).splitlines()
    return lines


SECTIONS = (findings,)
