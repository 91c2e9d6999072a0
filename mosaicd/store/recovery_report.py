"""Reports of recoveries, stored in the registry and shown by daemon.health.

Two reports are kept: that of a registry that was lost, as long as the directory of its old file exists, and
that of a registry that was behind, for a week.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaicd.protocol import Json
from mosaicd.protocol.records import untrusted
from mosaicd.store.statements import QUERIES

#: How long a registry that was behind is reported.
REPORTED_S = 7 * 86400.0
#: How many directories and runs are kept by name; all of them are counted.
MOST_NAMED = 50

_COUNTS = ("ended", "live", "waiting", "pruned", "caught_up", "unnamed")
#: Names in the registry's table `meta`: stored, never renamed.
_LOST, _BEHIND = "damage", "adopted"


@dataclass(slots=True)
class RecoveryReport:
    """Numbers of recovered runs, and the directories and runs that were not recovered.

    `set_aside`: the directory of the lost registry; None if the registry was only behind.  `caught_up`:
    number of rows that were behind.  `not_recovered`: directory -> reason.  `quarantined`: run id -> reason.
    `unnamed`: number of further directories that were not recovered.
    """

    why: str
    at: float
    set_aside: str | None = None
    ended: int = 0
    live: int = 0
    waiting: int = 0
    pruned: int = 0
    caught_up: int = 0
    not_recovered: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    unnamed: int = 0

    @property
    def is_empty(self) -> bool:
        """Return whether no run was recovered or quarantined."""
        counts = (self.ended, self.live, self.waiting, self.pruned, self.caught_up)
        return not any(counts) and not self.quarantined

    def to_dict(self) -> Json:
        """Return the stored form."""
        return {
            "why": self.why, "at": self.at, "set_aside": self.set_aside, "ended": self.ended,
            "live": self.live, "waiting": self.waiting, "pruned": self.pruned, "caught_up": self.caught_up,
            "quarantined": _first(self.quarantined), "not_recovered": _first(self.not_recovered),
            "unnamed": self.unnamed + max(0, len(self.not_recovered) - MOST_NAMED),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RecoveryReport | None":
        """Return the report of a stored form; None if it is invalid.  An unreadable field is empty."""
        at, set_aside = untrusted.seconds(data.get("at")), untrusted.text(data.get("set_aside"))
        if at is None:
            return None
        report = cls(untrusted.text(data.get("why")) or "?", at, set_aside)
        for name in _COUNTS:
            setattr(report, name, untrusted.count(data.get(name)) or 0)
        report.quarantined = _texts(data.get("quarantined"))
        report.not_recovered = _texts(data.get("not_recovered"))
        return report

    def summary(self) -> str:
        """Return one line for the operator."""
        counts = [f"{self.ended} ended, {self.live} live and {self.waiting} waiting runs"]
        if self.caught_up:
            counts.append(f"{self.caught_up} runs that the registry had in an older state")
        if self.pruned:
            counts.append(f"{self.pruned} runs whose pruning had begun (now pruned)")
        faults = ""
        if self.quarantined:
            ids = " ".join(self.quarantined)
            faults += (
                f"; quarantined, because another run has their slots or their key: {ids} (check their "
                "processes, and end those that should not run)"
            )
        directories = len(self.not_recovered) + self.unnamed
        if directories:
            faults += f"; {directories} directories were not recovered (LOG2103 has the reason for each)"
        if self.set_aside is None:
            return (
                f"the registry was behind its run directories: {self.why}; recovered from them: "
                f"{', '.join(counts)}{faults}; lost, because only the registry held them: changes after the "
                "submit, pins, requests"
            )
        return (
            f"{self.why}; it was set aside in {self.set_aside} and rebuilt from the run directories: "
            f"{', '.join(counts)}{faults}; lost, because only the old registry held them: changes after the "
            "submit, pins, requests, ids of pruned runs. Move that directory away when you no longer "
            "need it"
        )


def write_report(connection: sqlite3.Connection, report: RecoveryReport) -> None:
    """Store a report in place of the last one of its kind; call it inside a transaction."""
    name = _BEHIND if report.set_aside is None else _LOST
    connection.execute(QUERIES["set_meta"], (name, json.dumps(report.to_dict())))


def read_reports(connection: sqlite3.Connection, now: float) -> list[RecoveryReport]:
    """Return the reports that are still shown at the time `now`."""
    reports = (RecoveryReport.from_dict(read_meta_object(connection, name)) for name in (_LOST, _BEHIND))
    return [report for report in reports if report is not None and _is_shown(report, now)]


def read_meta_object(connection: sqlite3.Connection, name: str) -> Json:
    """Return the JSON object that the table `meta` has under `name`; {} if there is no JSON object."""
    found = connection.execute(QUERIES["meta"], (name,)).fetchone()
    try:
        value = json.loads(found[0]) if found else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_shown(report: RecoveryReport, now: float) -> bool:
    if report.set_aside is None:
        return abs(now - report.at) < REPORTED_S
    return os.path.exists(report.set_aside)


def _first(named: Mapping[str, str]) -> dict[str, str]:
    return dict(list(named.items())[:MOST_NAMED])


def _texts(value: Any) -> dict[str, str]:
    found = value if isinstance(value, dict) else {}
    return {str(name): text for name, why in found.items() if (text := untrusted.text(why)) is not None}
