"""A registry of the original MOSAIC comes over as history: only read, never started, nothing guessed."""

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

OF_THE_CODE = """CREATE TABLE runs (run_id TEXT PRIMARY KEY, status TEXT NOT NULL, config_json TEXT,
    digest TEXT UNIQUE, gpu_slots TEXT, created_at TEXT, started_at TEXT, finished_at TEXT,
    last_heartbeat TEXT, outcome TEXT,
    failure_reason TEXT, session_colour TEXT)"""
OF_THE_BLUEPRINT = """CREATE TABLE runs (run_id TEXT, status TEXT, config_digest TEXT, started_at REAL,
    finished_at REAL, last_heartbeat REAL, artifact_manifest TEXT, failure_reason TEXT, gpu_slot INTEGER)"""


ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def make(path: Path, schema: str, rows: list[dict[str, Any]]) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema)
        for row in rows:
            marks = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        connection.commit()
    return path


def state_of(path: Path) -> tuple[str, list[str]]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), sorted(p.name for p in path.parent.iterdir())


def row(number: int, status: str, **more: Any) -> dict[str, Any]:
    start = f"2025-10-0{number % 9 + 1}T10:00:00+00:00"
    values = {
        "run_id": f"old-{number}", "status": status, "config_json": json.dumps(CONFIG),
        "digest": f"{number:064x}", "created_at": start, "started_at": start,
        "finished_at": start.replace("10:00", "11:30"),
    }  # fmt: skip
    return {**values, **more}


def test_the_words_of_the_code(harness: DaemonHarness) -> None:
    """Every status word of the code has its outcome; live words are interrupted; times and names stay."""
    (harness.home / "old").mkdir()
    source = make(harness.home / "old/trainer.sqlite", OF_THE_CODE, [
        row(1, "completed"), row(2, "failed", failure_reason="worker_timeout"), row(3, "cancelled"),
        row(4, "terminated", outcome="succeeded"), row(5, "TERM", outcome="failed", failure_reason="boom"),
        row(6, "executing", finished_at=None, gpu_slots="[0, 1]"), row(8, "paused"), row(10, "faulted"),
        row(7, "PENDING", started_at=None, finished_at=None), row(9, "RUN_STATUS_COMPLETED"),
        row(11, "handshake"), row(12, "init"),
    ])  # fmt: skip
    before = state_of(source)
    told = json.loads(harness.ctl("-o", "json", "import", str(source)).stdout)
    assert (told["imported"], told["known"], told["skipped"]) == (12, 0, 0)
    assert told["unknown_columns"] == ["session_colour"] and told["notes"] == []
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
    return 1759312800.0 + 86400 * (number % 9)


def test_the_words_of_the_blueprint_and_again(harness: DaemonHarness) -> None:
    """The older form comes too; doing it twice brings nothing twice; watchers are told every event."""
    source = make(harness.home / "registry.db", OF_THE_BLUEPRINT, [
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
        said = harness.ctl("import", str(source))
        assert said.returncode == 0, said.stderr
        seqs: list[int] = []
        while len(seqs) < 11:
            found = watcher.next_notification(DEADLINE_S)
            assert found is not None, f"only {len(seqs)} events were told"
            seqs.append(found[1]["seq"])
    assert seqs == list(range(1, 12))
    assert all(word in said.stdout for word in ("artifact_manifest", "'sleeping'", "run_id", "'yesterday'"))
    again = json.loads(harness.ctl("-o", "json", "import", str(source)).stdout)
    assert (again["imported"], again["known"], again["skipped"]) == (0, 3, 1)
    assert harness.get(ULID)["outcome"] == "interrupted"
    assert harness.get("b")["exit_code"] is None and harness.get("b")["cause"]["error"] == "exit 3"


def test_what_is_no_registry_is_refused(harness: DaemonHarness) -> None:
    """No file, no database, no such table, our own registry: one sentence, exit 2, and nothing comes."""
    text = harness.home / "notes.txt"
    text.write_text("no database" * 100)
    other = make(harness.home / "other.db", "CREATE TABLE runs (colour TEXT)", [])
    for path, word in (
        (harness.home / "nothing", str(harness.home / "nothing")),
        (text, "SQLite"),
        (other, "run_id and status"),
        (harness.state_dir / "registry.sqlite3", "registry of mosaicd"),
    ):
        said = harness.ctl("import", str(path))
        assert said.returncode != 0 and word in said.stderr, said
    assert harness.call("run.list")["runs"] == []
