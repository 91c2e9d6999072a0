"""The registry of the original MOSAIC is imported as history: it is only read, and no imported run starts."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mosaicd.core.legacy import imported_id
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import DEADLINE_S

CONFIG = {
    "run_name": "taxi",
    "entry_point": "python",
    "arguments": ["-m", "spade_bdi_worker"],
    "resources": {},
}

CODE_SCHEMA = """CREATE TABLE runs (run_id TEXT PRIMARY KEY, status TEXT NOT NULL, config_json TEXT,
    digest TEXT UNIQUE, gpu_slots TEXT, created_at TEXT, started_at TEXT, finished_at TEXT,
    last_heartbeat TEXT, outcome TEXT,
    failure_reason TEXT, session_colour TEXT)"""
BLUEPRINT_SCHEMA = """CREATE TABLE runs (run_id TEXT, status TEXT, config_digest TEXT, started_at REAL,
    finished_at REAL, last_heartbeat REAL, artifact_manifest TEXT, failure_reason TEXT, gpu_slot INTEGER)"""


ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def make(path: Path, schema: str, rows: list[dict[str, Any]]) -> Path:
    """Make a registry of the original MOSAIC with the given rows; return its path."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema)
        for row in rows:
            marks = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        connection.commit()
    return path


def state_of(path: Path) -> tuple[str, list[str]]:
    """Return the hash of a file and the names of the files beside it."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), sorted(p.name for p in path.parent.iterdir())


def row(number: int, status: str, **more: Any) -> dict[str, Any]:
    """Return a row of a run that started at 10:00 and ended at 11:30."""
    start = f"2025-10-0{number % 9 + 1}T10:00:00+00:00"
    values = {
        "run_id": f"old-{number}", "status": status, "config_json": json.dumps(CONFIG),
        "digest": f"{number:064x}", "created_at": start, "started_at": start,
        "finished_at": start.replace("10:00", "11:30"),
    }  # fmt: skip
    return {**values, **more}


def test_import_of_a_registry_of_the_code(harness: DaemonHarness) -> None:
    """Each status of the original code has its outcome; live ones become interrupted; times and names are
    kept."""
    (harness.home / "old").mkdir()
    source = make(harness.home / "old/trainer.sqlite", CODE_SCHEMA, [
        row(1, "completed"), row(2, "failed", failure_reason="worker_timeout"), row(3, "cancelled"),
        row(4, "terminated", outcome="succeeded"), row(5, "TERM", outcome="failed", failure_reason="boom"),
        row(6, "executing", finished_at=None, gpu_slots="[0, 1]"), row(8, "paused"), row(10, "faulted"),
        row(7, "PENDING", started_at=None, finished_at=None), row(9, "RUN_STATUS_COMPLETED"),
        row(11, "handshake"), row(12, "init"),
    ])  # fmt: skip
    before = state_of(source)
    report = json.loads(harness.ctl("-o", "json", "import", str(source)).stdout)
    assert (report["imported"], report["known"], report["skipped"]) == (12, 0, 0)
    assert report["unknown_columns"] == ["session_colour"] and report["notes"] == []
    assert state_of(source) == before

    def run(number: int) -> dict[str, Any]:
        return harness.get(imported_id(f"old-{number}", run_at(number)))

    outcomes = {number: run(number)["outcome"] for number in range(1, 13)}
    interrupted = dict.fromkeys((6, 7, 8, 10, 11, 12), "interrupted")
    succeeded = dict.fromkeys((1, 4, 9), "succeeded")
    assert outcomes == {2: "failed", 3: "cancelled", 5: "failed", **succeeded, **interrupted}
    assert run(2)["cause"]["kind"] == "heartbeat_lost" and run(5)["cause"]["error"] == "boom"
    first = run(1)
    assert (first["state"], first["origin"], first["name"]) == ("TERM", "import", "taxi")
    assert first["finished_at"] - first["started_at"] == 5400
    assert (
        first["command"] == ["python", "-m", "spade_bdi_worker"] and first["labels"]["imported_id"] == "old-1"
    )
    assert run(6)["gpus"]["requested"] == 2
    harness.restart()
    assert run(1) == first


def run_at(number: int) -> float:
    """Return when the run of `row(number)` started."""
    return 1759312800.0 + 86400 * (number % 9)


def test_import_of_a_registry_of_the_blueprint_twice(harness: DaemonHarness) -> None:
    """The older schema is imported too; a second import adds nothing; watchers receive every event."""
    source = make(harness.home / "registry.db", BLUEPRINT_SCHEMA, [
        {"run_id": ULID, "status": "running", "config_digest": "d1", "started_at": 1.7e9},
        {"run_id": "b", "status": "FAILED", "started_at": 1.7e12, "failure_reason": "exit 3", "gpu_slot": 0},
        {"run_id": "c", "status": "sleeping", "started_at": "yesterday"},
        {"run_id": None, "status": "completed"},
    ])  # fmt: skip
    dry = json.loads(harness.ctl("-o", "json", "import", "--dry-run", str(source)).stdout)
    assert (dry["dry_run"], dry["rows"], dry["imported"], dry["skipped"]) == (True, 4, 3, 1)
    assert harness.call("run.list")["runs"] == []
    with harness.client() as watcher:
        watcher.call("run.watch", {"since": 0})
        done = harness.ctl("import", str(source))
        assert done.returncode == 0, done.stderr
        seqs: list[int] = []
        while len(seqs) < 11:
            notification = watcher.next_notification(DEADLINE_S)
            assert notification is not None, f"the watcher received only {len(seqs)} events"
            seqs.append(notification[1]["seq"])
    assert seqs == list(range(1, 12))
    assert all(word in done.stdout for word in ("artifact_manifest", "'sleeping'", "run_id", "'yesterday'"))
    again = json.loads(harness.ctl("-o", "json", "import", str(source)).stdout)
    assert (again["imported"], again["known"], again["skipped"]) == (0, 3, 1)
    assert harness.get(ULID)["outcome"] == "interrupted"
    assert harness.get("b")["exit_code"] is None and harness.get("b")["cause"]["error"] == "exit 3"


def test_import_of_no_registry_is_refused(harness: DaemonHarness) -> None:
    """A missing file, no database, no table of runs and mosaicd's own registry are refused; nothing is
    imported."""
    text = harness.home / "notes.txt"
    text.write_text("no database" * 100)
    other = make(harness.home / "other.db", "CREATE TABLE runs (colour TEXT)", [])
    for path, word in (
        (harness.home / "nothing", str(harness.home / "nothing")),
        (text, "SQLite"),
        (other, "run_id and status"),
        (harness.state_dir / "registry.sqlite3", "registry of mosaicd"),
    ):
        done = harness.ctl("import", str(path))
        assert done.returncode != 0 and word in done.stderr, done
    assert harness.call("run.list")["runs"] == []
