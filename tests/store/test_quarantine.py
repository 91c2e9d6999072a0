"""A bad row never prevents the start of the daemon: it is quarantined and reported."""

from pathlib import Path

import pytest

from mosaicd.core.run import Progress, Run
from mosaicd.protocol.states import Dedup
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from tests.store.building import new_run, raw, submission, to_exec, to_term

pytestmark = pytest.mark.usefixtures("may_warn")


async def make(path: Path) -> tuple[Run, Run, Run]:
    """Make a registry with a run in EXEC on slots 0 and 1, a waiting run and an ended one."""
    registry = await Registry.open(path)
    works, waits, ended = [
        (await registry.add(submission(new_run()), dedup=Dedup.NEW, key=None))[0] for _ in range(3)
    ]
    works = await registry.record(works.run_id, *to_exec(0, 1))
    ended = await registry.record(ended.run_id, *to_exec(), *to_term())
    await registry.close()
    return works, waits, ended


def damage_file(path: Path, statement: str, **values: str) -> None:
    """Change the file without any constraint."""
    connection = raw(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("PRAGMA foreign_keys = OFF")
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement, values)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


DAMAGES = {
    "body is no JSON": "UPDATE runs SET body = '{' WHERE run_id = :id",
    "body is not UTF-8": "UPDATE runs SET body = CAST(x'7b22ff227d' AS TEXT) WHERE run_id = :id",
    "name is not UTF-8": "UPDATE runs SET name = CAST(x'ff' AS TEXT) WHERE run_id = :id",
    "unknown state": "UPDATE runs SET state = 'SLEEP' WHERE run_id = :id",
    "unknown want": "UPDATE runs SET want = 'nap' WHERE run_id = :id",
    "unknown field": "UPDATE runs SET body = json_set(body, '$.colour', 'red') WHERE run_id = :id",
    "no argv": "UPDATE runs SET body = json_remove(body, '$.command') WHERE run_id = :id",
    "argv is a number": "UPDATE runs SET body = json_set(body, '$.command', 5) WHERE run_id = :id",
    "no events": "DELETE FROM events WHERE run_id = :id",
    "first event missing": "DELETE FROM events WHERE run_id = :id AND rev = 1",
    "event missing": "DELETE FROM events WHERE run_id = :id AND kind = 'dispatched'",
    "last event missing": "DELETE FROM events WHERE run_id = :id AND kind = 'started'",
    "unknown event": "UPDATE events SET kind = 'danced' WHERE run_id = :id AND rev = 2",
    "event data no JSON": "UPDATE events SET data = 'x' WHERE run_id = :id AND rev = 2",
    "event data a list": "UPDATE events SET data = '[1]' WHERE run_id = :id AND rev = 2",
    "event data empty": "UPDATE events SET data = '{}' WHERE run_id = :id AND rev = 2",
    "event not UTF-8": "UPDATE events SET who = CAST(x'ff' AS TEXT) WHERE run_id = :id AND rev = 2",
    "row ahead of events": "UPDATE runs SET rev = rev + 1 WHERE run_id = :id",
    "row elsewhere": "UPDATE runs SET state = 'PAUSE' WHERE run_id = :id",
    "slot missing": "DELETE FROM slots WHERE slot = 1",
    "a slot that the row does not name": "INSERT INTO slots VALUES (2, :id)",
    "nested too deep": "UPDATE runs SET body = replace(hex(zeroblob(100000)), '00', '[') WHERE run_id = :id",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_bad_live_row_is_quarantined(path: Path, damage: str) -> None:
    """The daemon starts without the run; row, events and slots are kept, and its slots are reported."""
    works, waits, _ = await make(path)
    damage_file(path, DAMAGES[damage], id=works.run_id)
    before = contents(path, "runs", "events")
    registry = await Registry.open(path)
    assert list(registry.live) == [waits.run_id]
    (entry,) = registry.quarantine
    assert entry["run_id"] == works.run_id
    assert set(entry["slots"]) >= {0, 1} and entry["is_live"], "the slots of row, table and events"
    assert entry["why"]
    assert contents(path, "quarantine", "quarantined_events") == before
    await registry.record(waits.run_id, *to_exec(0, 1, 2))  # SQL does not reserve slots of a quarantined run
    await registry.close()
    registry = await Registry.open(path)  # the row stays quarantined and reported
    assert [entry["run_id"] for entry in registry.quarantine] == [works.run_id]
    assert list(registry.live) == [waits.run_id]
    await registry.close()


def contents(path: Path, runs: str, events: str) -> tuple[list[object], list[object]]:
    """Return the row of the run in EXEC, and its events, as bytes."""
    connection = raw(path)
    connection.text_factory = bytes
    connection.row_factory = lambda cursor, row: row[:18]
    try:
        row = connection.execute(f"SELECT * FROM {runs} WHERE n = 1").fetchall()
        sql = f"SELECT * FROM {events} WHERE run_id = (SELECT run_id FROM {runs} WHERE n = 1) ORDER BY seq"
        return row, connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "damage", ["body is no JSON", "body is not UTF-8", "name is not UTF-8", "unknown want", "no argv"]
)
async def test_a_bad_row_of_an_ended_run_is_left_out_and_quarantined(path: Path, damage: str) -> None:
    """Lists show the other runs, get and find do not return it, and it is quarantined."""
    works, waits, ended = await make(path)
    damage_file(path, DAMAGES[damage], id=ended.run_id)
    registry = await Registry.open(path)
    history = History(path, on_bad=registry.quarantine_ended)
    page, _ = await history.list()
    assert [run.run_id for run, _ in page] == [works.run_id, waits.run_id]
    assert await history.get(ended.run_id) is None
    await registry.flush()
    assert {entry["run_id"] for entry in registry.quarantine} == {ended.run_id}
    assert len(registry.quarantine) == 1  # it was reported twice and moved once
    assert await history.counts() == dict.fromkeys(["HSHK", "RDY", "PAUSE", "FAULT", "TERM"], 0) | {
        "INIT": 1,
        "EXEC": 1,
    }
    await history.close()
    await registry.close()


async def test_a_reader_does_not_quarantine_a_live_row(path: Path) -> None:
    """A live run stays live and keeps its row, even if a reader reports its row as bad."""
    works, waits, _ = await make(path)
    registry = await Registry.open(path)
    registry.quarantine_ended(works.run_id, "a reader reports the row")
    await registry.flush()
    assert registry.quarantine == []
    assert set(registry.live) == {works.run_id, waits.run_id}
    await registry.close()


async def test_a_run_with_unreadable_last_values_is_kept(path: Path) -> None:
    """Last values that cannot be read are dropped, and the run is kept."""
    works, _, _ = await make(path)
    damage_file(path, "UPDATE runs SET progress = 'x' WHERE run_id = :id", id=works.run_id)
    registry = await Registry.open(path)
    assert registry.progress[works.run_id] == Progress()
    assert registry.quarantine == []
    await registry.close()


async def test_an_unreadable_event_does_not_stop_a_replay(path: Path) -> None:
    """A watcher gets every seq; an unreadable event is marked as unreadable."""
    _, _, ended = await make(path)
    damage_file(path, "UPDATE events SET data = 'x' WHERE run_id = :id AND rev = 3", id=ended.run_id)
    history = History(path)
    events = await history.events(0, 100)
    assert len({event.seq for event in events}) == 13
    (bad,) = [event for event in events if "unreadable" in event.data]
    assert (bad.run_id, bad.rev) == (ended.run_id, 3)
    await history.close()


async def test_a_row_that_differs_from_its_replay_is_kept(path: Path) -> None:
    """If revision and state agree, the row is kept: an older version may have folded otherwise."""
    works, _, _ = await make(path)
    damage_file(path, "UPDATE runs SET body = json_set(body, '$.pid', 1) WHERE run_id = :id", id=works.run_id)
    registry = await Registry.open(path)
    assert registry.live[works.run_id].pid == 1
    assert registry.quarantine == []
    await registry.close()


async def test_many_bad_rows_do_not_prevent_the_start(path: Path) -> None:
    """The daemon starts with a hundred bad rows."""
    registry = await Registry.open(path)
    for _ in range(100):
        await registry.add(submission(new_run()), dedup=Dedup.NEW)
    await registry.close()
    damage_file(path, "UPDATE runs SET body = '{' WHERE n % 2")
    registry = await Registry.open(path)
    assert (len(registry.live), len(registry.quarantine)) == (50, 50)
    await registry.close()
