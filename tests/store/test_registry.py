"""The registry: one transaction for each change, and live runs that follow each COMMIT in order."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from mosaicd.core.fsm import Event, IllegalTransition, Kind, place
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import NotFound
from mosaicd.protocol.states import Dedup, State, Want
from mosaicd.store.history import History
from mosaicd.store.registry import Committed, LostUpdate, Registry
from tests.store.building import (
    EXIT_0,
    dispatched,
    event,
    ledger,
    new_run,
    raw,
    registered,
    row,
    submission,
    to_exec,
    to_term,
)


async def add(registry: Registry, **fields: object) -> Run:
    run, _ = await registry.add(submission(new_run(**fields)), dedup=Dedup.NEW)
    return run


async def test_a_run_from_submit_to_term(registry: Registry, path: Path) -> None:
    """Row, ledger, slots and live run agree after each event, and an ended run is not live any more."""
    run = await add(registry)
    assert (run.state, run.rev) == (State.INIT, 1)
    run = await registry.record(run.run_id, *to_exec(0, 1))
    assert registry.live[run.run_id] == run
    assert slots(path) == [(0, run.run_id), (1, run.run_id)]
    assert (row(path, run.run_id)["state"], row(path, run.run_id)["rev"]) == ("EXEC", 5)
    run = await registry.record(run.run_id, *to_term())
    assert (run.state, run.outcome, run.rev) == (State.TERM, "succeeded", 7)
    assert run.run_id not in registry.live
    assert run.run_id not in registry.progress
    assert slots(path) == []
    kinds = [e.kind for e in ledger(path, run.run_id)]
    assert kinds == ["submitted", "dispatched", "registered", "spawned", "started", "exited", "finished"]


async def test_submit_order_does_not_depend_on_the_clock(path: Path) -> None:
    """A later submit has a higher number, independent of the clock, also after a restart and a retry."""
    registry = await Registry.open(path)
    runs = [await add(registry, created_at=1e9 - number, retries=1) for number in range(4)]
    await registry.add(submission(runs[0]), dedup=Dedup.NEW)
    await registry.record(runs[3].run_id, *to_exec(), *to_term())
    await registry.record(runs[0].run_id, *to_exec(0), event(Kind.LOST, kind="shim_lost"))
    await registry.record(runs[0].run_id, event(Kind.REQUEUED, not_before=1.0, cause={"kind": "shim_lost"}))
    await registry.close()
    again = await Registry.open(path)
    runs[3] = await add(again, created_at=1.0)
    for order in (registry.submit_order, again.submit_order):
        live = [run.run_id for run in runs if run.run_id in order]
        assert sorted(order, key=order.__getitem__) == live
    assert len(registry.submit_order) == 3 and len(again.submit_order) == 4
    await again.close()


async def test_an_event_of_a_run_that_is_not_live_is_refused(registry: Registry) -> None:
    """An unknown run and an ended run accept no event."""
    run = await add(registry)
    await registry.record(run.run_id, *to_exec(), *to_term())
    for run_id in (run.run_id, "0" * 26):
        with pytest.raises(NotFound):
            await registry.record(run_id, event(Kind.SET, priority=1))


async def test_an_illegal_event_changes_nothing(registry: Registry, path: Path) -> None:
    """Either all events of a request are stored or none, and the run accepts the next event."""
    run = await add(registry)
    before = row(path, run.run_id)
    with pytest.raises(IllegalTransition):
        await registry.record(run.run_id, dispatched(0), event(Kind.CONTINUED))
    assert row(path, run.run_id) == before
    assert len(ledger(path, run.run_id)) == 1
    assert registry.live[run.run_id] == run
    assert (await registry.record(run.run_id, dispatched(0))).state is State.HSHK


async def test_a_lost_update_is_refused(path: Path) -> None:
    """A row that another process has changed is never overwritten."""
    registry = await Registry.open(path)
    run = await add(registry)
    with raw(path) as other:
        other.execute("UPDATE runs SET rev = 2, want = 'stop' WHERE run_id = ?", (run.run_id,))
    other.close()
    with pytest.raises(LostUpdate):
        await registry.record(run.run_id, dispatched(0))
    assert (row(path, run.run_id)["state"], row(path, run.run_id)["want"]) == ("INIT", "stop")
    assert slots(path) == []
    assert len(ledger(path, run.run_id)) == 1
    await registry.close()


async def test_a_slot_has_one_owner(registry: Registry, path: Path) -> None:
    """A run cannot take a slot that another run holds; it can after the slot is free."""
    first, second = await add(registry), await add(registry)
    await registry.record(first.run_id, dispatched(0, 1))
    with pytest.raises(sqlite3.IntegrityError):
        await registry.record(second.run_id, dispatched(1, 2))
    assert registry.live[second.run_id].state is State.INIT
    assert slots(path) == [(0, first.run_id), (1, first.run_id)]
    await registry.record(first.run_id, event(Kind.LOST, kind="shim_lost"))
    await registry.record(
        first.run_id, event(Kind.GAVE_UP, outcome="interrupted", cause={"kind": "shim_lost"})
    )
    await registry.record(second.run_id, dispatched(1, 2))
    assert slots(path) == [(1, second.run_id), (2, second.run_id)]


async def test_a_requeued_run_gives_its_slots_back_in_the_same_commit(registry: Registry, path: Path) -> None:
    """FAULT to INIT frees the slots, and the next attempt may hold other slots."""
    run = await add(registry, retries=1)
    await registry.record(run.run_id, *to_exec(0), event(Kind.LOST, kind="shim_lost"))
    await registry.record(run.run_id, event(Kind.REQUEUED, not_before=1.0, cause={"kind": "shim_lost"}))
    assert slots(path) == []
    again = await registry.record(run.run_id, *to_exec(1, attempt=2))
    assert (again.attempt, slots(path)) == (2, [(1, run.run_id)])


async def test_64_simultaneous_requests_for_one_run_are_all_recorded(registry: Registry, path: Path) -> None:
    """Each of 64 simultaneous requests gets its own revision, without a gap in the ledger."""
    run = await add(registry)
    done = await asyncio.gather(
        *(registry.record(run.run_id, event(Kind.SET, priority=number)) for number in range(64))
    )
    assert sorted(after.rev for after in done) == list(range(2, 66))
    stored = ledger(path, run.run_id)
    assert sorted(e.data["priority"] for e in stored[1:]) == list(range(64))
    assert registry.live[run.run_id].priority == stored[-1].data["priority"]


async def test_64_simultaneous_runs_do_not_affect_each_other(registry: Registry, path: Path) -> None:
    """Runs that change at the same time all reach TERM, with complete ledgers."""

    async def life() -> Run:
        run = await add(registry)
        for step in (*to_exec(), *to_term()):
            run = await registry.record(run.run_id, step)
        return run

    done = await asyncio.gather(*(life() for _ in range(64)))
    assert {run.state for run in done} == {State.TERM}
    assert not registry.live
    assert all(len(ledger(path, run.run_id)) == 7 for run in done)


async def test_record_if_decides_on_the_newest_row(registry: Registry) -> None:
    """record_if decides under the lock of the run, so 50 tasks that each add 1 reach 50."""
    run = await add(registry)

    def one_more(now: Run) -> Sequence[Event]:
        return [event(Kind.SET, priority=now.priority + 1)]

    await asyncio.gather(*(registry.record_if(run.run_id, one_more) for _ in range(50)))
    assert registry.live[run.run_id].priority == 50


async def test_no_events_write_nothing(registry: Registry) -> None:
    """Without events there is no new revision, and after a failed decision the next caller is served."""
    run = await add(registry)
    assert await registry.record_if(run.run_id, lambda now: []) == run

    def fail(now: Run) -> Sequence[Event]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await registry.record_if(run.run_id, fail)
    assert (await registry.record(run.run_id, event(Kind.HOLD))).held


async def test_the_write_of_a_cancelled_caller_still_happens(registry: Registry, path: Path) -> None:
    """The write of a cancelled caller still happens, changes the live run, and lets the next caller in."""
    run = await add(registry)
    dropped = asyncio.create_task(registry.record(run.run_id, event(Kind.SET, priority=1)))
    waits = asyncio.create_task(registry.record(run.run_id, event(Kind.SET, priority=2)))
    await asyncio.sleep(0)  # one task has sent its write, one waits for the lock
    dropped.cancel()
    after = await registry.record(run.run_id, event(Kind.HOLD))
    await waits
    assert dropped.cancelled() or dropped.cancelling()
    assert (after.rev, after.priority) == (4, 2)
    assert [e.kind for e in ledger(path, run.run_id)] == ["submitted", "set", "set", "hold"]


async def test_subscribers_get_every_event_once_in_order_after_commit(registry: Registry, path: Path) -> None:
    """A subscriber gets events that are on the disk, in the order of seq, without gaps."""
    received: list[Committed] = []

    def listen(batch: Sequence[Committed]) -> None:
        with raw(path) as reader:
            last = reader.execute("SELECT max(seq) FROM events").fetchone()[0]
        reader.close()
        assert batch[-1].seq <= last
        newest = {committed.run.run_id: committed.run for committed in batch}
        for run_id, run in newest.items():
            assert run.is_final or registry.live[run_id].rev >= run.rev
            assert run_id in registry.progress  # also for a run that has just ended
        received.extend(batch)

    registry.subscribe(listen)
    runs = await asyncio.gather(*(add(registry) for _ in range(20)))
    await asyncio.gather(*(registry.record(run.run_id, *to_exec(), *to_term()) for run in runs))
    assert [committed.seq for committed in received] == list(range(1, 141))
    assert registry.last_seq == 140
    for run in runs:
        mine = [committed for committed in received if committed.run.run_id == run.run_id]
        assert [committed.run.rev for committed in mine] == list(range(1, 8))
        assert mine[-1].event.kind is Kind.FINISHED


async def test_a_restart_restores_the_live_runs(path: Path) -> None:
    """After a restart the live runs have their last values, and seq continues."""
    first = await Registry.open(path)
    runs = [await add(first, labels={"a": "ü"}, command=("x", "\udcff")) for _ in range(3)]
    await first.record(runs[0].run_id, *to_exec(0))
    await first.record(runs[1].run_id, *to_exec(1), *to_term())
    first.advance(runs[0].run_id, Progress(telemetry_seq=7, steps=70, metrics={"loss": 0.5}))
    live, progress, epoch, seq = dict(first.live), dict(first.progress), first.epoch, first.last_seq
    await first.close()
    second = await Registry.open(path)
    assert dict(second.live) == live
    assert second.progress == progress
    assert (second.epoch, second.last_seq, second.quarantine) == (epoch, seq, [])
    assert (await second.record(runs[0].run_id, event(Kind.PAUSED))).state is State.PAUSE
    await second.close()


async def test_last_values_are_written_with_the_next_event(registry: Registry, history: History) -> None:
    """`advance` changes memory only; the next event of the run stores the values, and so does a flush."""
    run = await add(registry)
    await registry.record(run.run_id, *to_exec())
    registry.advance(run.run_id, Progress(steps=10))
    assert (await stored_progress(history, run.run_id)).steps is None
    await registry.record(run.run_id, event(Kind.PAUSE_REQUESTED))
    assert (await stored_progress(history, run.run_id)).steps == 10
    registry.advance(run.run_id, Progress(steps=20, metrics={"loss": float("nan")}))
    await registry.flush()
    stored = await stored_progress(history, run.run_id)
    assert (stored.steps, stored.metrics) == (20, {"loss": "nan"})
    registry.advance(run.run_id, Progress(steps=30))
    await registry.record(run.run_id, *to_term())
    assert (await stored_progress(history, run.run_id)).steps == 30
    registry.advance(run.run_id, Progress(steps=40))  # too late: the run has ended
    await registry.flush()
    assert (await stored_progress(history, run.run_id)).steps == 30


async def test_a_new_attempt_counts_its_output_from_zero(registry: Registry) -> None:
    """Cursors belong to an attempt; steps and metrics stay until the worker reports others."""
    run = await add(registry, retries=1)
    await registry.record(run.run_id, *to_exec())
    registry.advance(run.run_id, Progress(telemetry_seq=9, stdout_bytes=8, stderr_bytes=7, steps=6))
    await registry.record(run.run_id, event(Kind.LOST, kind="shim_lost"))
    await registry.record(run.run_id, event(Kind.REQUEUED, not_before=1.0, cause={"kind": "shim_lost"}))
    assert registry.progress[run.run_id].telemetry_seq == 9
    await registry.record(run.run_id, dispatched(attempt=2))
    assert registry.progress[run.run_id] == Progress(steps=6)


async def test_an_exit_has_the_final_count_in_its_transaction(registry: Registry, history: History) -> None:
    """The counts of exit.json are stored with the event, so a crash before the end does not lose them."""
    run = await add(registry)
    await registry.record(run.run_id, *to_exec())
    registry.advance(run.run_id, Progress(steps=10, stdout_bytes=100))
    await registry.record(run.run_id, event(Kind.EXITED, **EXIT_0, steps=30, stdout_bytes=300))
    stored = await stored_progress(history, run.run_id)
    assert (stored.steps, stored.stdout_bytes) == (30, 300)
    assert registry.progress[run.run_id] == stored


async def test_an_urgent_write_does_not_wait_for_the_delay(path: Path) -> None:
    """An urgent event of a run sends the write before it that is not urgent."""
    registry = await Registry.open(path, group_commit_s=3600)
    run = await add(registry)
    not_urgent = asyncio.create_task(registry.record(run.run_id, dispatched(), urgent=False))
    await asyncio.sleep(0)
    assert registry.live[run.run_id].state is State.INIT
    async with asyncio.timeout(30):
        assert (await registry.record(run.run_id, registered())).state is State.RDY
    assert (await not_urgent).state is State.HSHK
    await registry.close()


async def test_a_request_changes_the_want_and_not_the_state(registry: Registry, path: Path) -> None:
    """A request changes want and revision, and not the state."""
    run = await add(registry)
    await registry.record(run.run_id, *to_exec())
    after = await registry.record(run.run_id, event(Kind.STOP_REQUESTED, reason="enough"))
    assert (place(after), after.want, after.rev) == ("EXEC", Want.STOP, 6)
    stored = row(path, run.run_id)
    assert (stored["state"], stored["want"]) == ("EXEC", "stop")


async def stored_progress(history: History, run_id: str) -> Progress:
    found = await history.get(run_id)
    assert found is not None
    return found[1]


def slots(path: Path) -> list[tuple[int, str]]:
    connection = raw(path)
    try:
        return connection.execute("SELECT slot, run_id FROM slots ORDER BY slot").fetchall()
    finally:
        connection.close()
