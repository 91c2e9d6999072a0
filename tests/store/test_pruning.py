"""Pruning deletes runs from rows and ledger, and records that they were pruned."""

from pathlib import Path

import pytest

from mosaicd.core.run import Run
from mosaicd.protocol.errors import Conflict, NotFound
from mosaicd.protocol.messages import ListRuns
from mosaicd.protocol.states import Dedup
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from tests.store.building import new_run, raw, submission, to_exec, to_term


async def ended(registry: Registry, key: str | None = None, **fields: str) -> Run:
    run, _ = await registry.add(submission(new_run(key=key, **fields)), dedup=Dedup.NEW, key=key)
    return await registry.record(run.run_id, *to_exec(), *to_term())


async def test_a_pruned_run_is_deleted_and_its_seqs_are_not_used_again(
    registry: Registry, history: History
) -> None:
    """A pruned run is in no list and no replay; the next event has a higher seq than all before."""
    first, second = await ended(registry), await ended(registry)
    last = await history.last_seq()
    assert await registry.retention.prune({second.run_id: 5}, "ada") == [second.run_id]
    assert [run.run_id for run, _ in (await history.list())[0]] == [first.run_id]
    assert {event.run_id for event in await history.events(0, 1000)} == {first.run_id}
    assert registry.retention.pruned_seq == last
    third = await ended(registry)
    assert min(event.seq for event in await history.events(0, 1000, third.run_id)) > last


@pytest.mark.parametrize("pin", [True, False])
async def test_live_and_pinned_runs_stay(registry: Registry, history: History, pin: bool) -> None:
    """The registry prunes no live or pinned run, also if it was pinned after the decision."""
    if pin:
        run = await ended(registry)
        await registry.retention.pin(run.run_id, "ada")
    else:
        run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
    assert await registry.retention.prune({run.run_id: 5}, "ada") == []
    assert await history.get(run.run_id) is not None
    if pin:
        await registry.retention.pin(run.run_id, "ada", pinned=False)
        assert await registry.retention.prune({run.run_id: 5}, "ada") == [run.run_id]


async def test_id_and_key_of_a_pruned_run_are_not_used_again(registry: Registry) -> None:
    """A submit with the id or the key of a pruned run is refused."""
    run = await ended(registry, key="nightly")
    await registry.retention.prune({run.run_id: 5}, "ada")
    for again in (new_run(run_id=run.run_id), new_run(key="nightly", digest=run.digest)):
        with pytest.raises(Conflict) as caught:
            await registry.add(submission(again), dedup=Dedup.NEW, key=again.key)
        assert caught.value.data["run_id"] == run.run_id and caught.value.data["pruned_at"] > 0


async def test_the_error_for_a_pruned_run_has_the_time_of_its_pruning(
    registry: Registry, history: History
) -> None:
    """The error has time of pruning and outcome, only for a user that was allowed to see the run."""
    run = await ended(registry)
    await registry.retention.prune({run.run_id: 5}, "bob")
    with pytest.raises(NotFound, match="bob") as caught:
        await history.find(run.owner_uid, run.run_id.lower())
    assert caught.value.data["outcome"] == "succeeded" and caught.value.data["pruned_at"] > 0
    with pytest.raises(NotFound) as caught:
        await history.find(run.owner_uid + 1, run.run_id)
    assert "pruned_at" not in caught.value.data


async def test_pins_and_unfinished_removals_survive_a_restart(registry: Registry, path: Path) -> None:
    """After a crash between row and directory, the next start knows the directories to remove."""
    pinned, removed, unfinished = await ended(registry), await ended(registry), await ended(registry)
    await registry.retention.pin(pinned.run_id, "ada")
    await registry.retention.prune({removed.run_id: 1, unfinished.run_id: 2}, "ada")
    await registry.retention.note_removed([removed.run_id])
    await registry.flush()
    await registry.close()
    again = await Registry.open(path)
    assert (again.retention.pins, again.retention.pruned_left) == ({pinned.run_id}, {unfinished.run_id})
    assert again.retention.pruned_seq == registry.retention.pruned_seq
    await again.close()


async def test_candidates_for_pruning_are_the_ended_runs_that_fit(
    registry: Registry, history: History
) -> None:
    """Retention gets ended runs only, in the order of their ends, with pins and filters."""
    old, young = await ended(registry, name="a"), await ended(registry, name="b")
    await registry.add(submission(new_run(name="a")), dedup=Dedup.NEW)
    await registry.retention.pin(young.run_id, "ada")
    found = await history.ended(ListRuns())
    assert [(run.run_id, run.pinned) for run in found] == [(old.run_id, False), (young.run_id, True)]
    assert [run.run_id for run in await history.ended(ListRuns(name="b"))] == [young.run_id]
    assert await history.ended(ListRuns(outcome=["failed"])) == []
    assert await history.ended(ListRuns(), owner_uid=4) == []


@pytest.mark.usefixtures("may_warn")
async def test_a_bad_row_of_a_pinned_run_is_quarantined(path: Path) -> None:
    """A bad row is quarantined although its run is pinned."""
    registry = await Registry.open(path)
    run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
    await registry.retention.pin(run.run_id, "ada")
    await registry.close()
    connection = raw(path)
    connection.execute("DELETE FROM events WHERE run_id = ?", (run.run_id,))
    connection.close()
    again = await Registry.open(path)
    assert [row["run_id"] for row in again.quarantine] == [run.run_id]
    assert again.retention.pins == set()
    await again.close()
