"""Admission: ids, keys and dedup are checked inside the transaction of the writer, so there is no race."""

import asyncio
from dataclasses import replace

import pytest

from mosaicd.core.event import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Registry
from tests.store.building import new_run, submission, to_exec, to_term


async def add(
    registry: Registry, run: Run, dedup: Dedup = Dedup.NEW, key: str | None = None
) -> tuple[Run, bool]:
    return await registry.add(submission(run), dedup=dedup, key=key)


async def test_attach_returns_the_live_run(registry: Registry) -> None:
    """A submit of the same config returns the live run in its newest state; the ledger does not grow."""
    first, _ = await add(registry, new_run())
    now = await registry.record(first.run_id, *to_exec())
    found, duplicate = await add(registry, new_run(digest=first.digest), Dedup.ATTACH)
    assert (found, duplicate) == (now, True)
    assert registry.last_seq == 5


async def test_fail_refuses_a_duplicate_of_a_live_run(registry: Registry) -> None:
    """dedup=fail refuses a duplicate of a live run; the error has its id, and nothing is stored."""
    first, _ = await add(registry, new_run())
    with pytest.raises(Conflict) as caught:
        await add(registry, new_run(digest=first.digest), Dedup.FAIL)
    assert caught.value.data["run_id"] == first.run_id
    assert list(registry.live) == [first.run_id]


async def test_new_ignores_live_runs(registry: Registry) -> None:
    """dedup=new makes a second run of the same config."""
    first, _ = await add(registry, new_run())
    second, duplicate = await add(registry, new_run(digest=first.digest))
    assert not duplicate
    assert set(registry.live) == {first.run_id, second.run_id}


@pytest.mark.parametrize("dedup", [Dedup.ATTACH, Dedup.FAIL])
async def test_an_ended_run_blocks_no_submit(registry: Registry, dedup: Dedup) -> None:
    """A run that has ended does not prevent a run of the same config."""
    first, _ = await add(registry, new_run())
    await registry.record(first.run_id, *to_exec(), *to_term())
    second, duplicate = await add(registry, new_run(digest=first.digest), dedup)
    assert not duplicate
    assert second.run_id != first.run_id


@pytest.mark.parametrize("dedup", [Dedup.ATTACH, Dedup.FAIL])
async def test_a_run_that_is_being_stopped_blocks_no_submit(registry: Registry, dedup: Dedup) -> None:
    """A submit after a stop makes a new run, and does not attach to the run that is being stopped."""
    first, _ = await add(registry, new_run())
    await registry.record(first.run_id, *to_exec(), Event(Kind.STOP_REQUESTED, 1.0, "ada"))
    second, duplicate = await add(registry, new_run(digest=first.digest), dedup)
    assert not duplicate
    assert second.run_id != first.run_id


async def test_dedup_is_per_owner(registry: Registry) -> None:
    """The same config or key of another user is another run."""
    mine, _ = await add(registry, new_run(), key="k")
    other, duplicate = await add(
        registry, new_run(digest=mine.digest, owner_uid=1001, owner="bob"), Dedup.ATTACH, "k"
    )
    assert not duplicate
    assert other.run_id != mine.run_id


@pytest.mark.parametrize("dedup", list(Dedup))
async def test_a_key_finds_ended_runs_too(registry: Registry, dedup: Dedup) -> None:
    """A repeated submit with its idempotency key returns its run, in any state, whatever dedup says."""
    first, _ = await add(registry, new_run(), key="nightly")
    ended = await registry.record(first.run_id, *to_exec(), *to_term())
    found, duplicate = await add(registry, new_run(digest=first.digest), dedup, key="nightly")
    assert (found, duplicate) == (ended, True)


async def test_a_key_of_another_config_is_a_conflict(registry: Registry) -> None:
    """A key that was used for another config is refused."""
    first, _ = await add(registry, new_run(), key="nightly")
    with pytest.raises(Conflict) as caught:
        await add(registry, new_run(), key="nightly")
    assert caught.value.data["run_id"] == first.run_id


async def test_the_key_is_part_of_the_run(registry: Registry) -> None:
    """The key is stored with the run and in its first event, so that replay of events equals the row."""
    run, _ = await add(registry, new_run(), key="nightly")
    assert registry.live[run.run_id].key == "nightly"  # the fixture compares row and replay


async def test_the_same_id_and_config_are_the_same_run(registry: Registry) -> None:
    """A submit with an id of the client can be repeated, in any state of the run."""
    run = new_run()
    await add(registry, run)
    assert (await add(registry, run))[1]
    ended = await registry.record(run.run_id, *to_exec(), *to_term())
    assert await add(registry, run) == (ended, True)


@pytest.mark.parametrize(
    "fields", [{"digest": "other"}, {"owner_uid": 1001, "owner": "bob"}], ids=["config", "owner"]
)
async def test_an_id_of_another_run_is_a_conflict(registry: Registry, fields: dict[str, object]) -> None:
    """The same id with another config or of another user is refused; the error has only the id."""
    run = new_run()
    await add(registry, run)
    with pytest.raises(Conflict) as caught:
        await add(registry, replace(run, **fields), Dedup.ATTACH)  # type: ignore[arg-type]
    assert caught.value.data == {"run_id": run.run_id}
    assert registry.last_seq == 1


async def test_50_simultaneous_submits_make_one_run(registry: Registry) -> None:
    """Lookup and insert are one transaction: one submit makes the run and 49 attach to it."""
    digest = new_run().digest
    done = await asyncio.gather(*(add(registry, new_run(digest=digest), Dedup.ATTACH) for _ in range(50)))
    assert sorted(duplicate for _, duplicate in done) == [False] + [True] * 49
    assert len({run.run_id for run, _ in done}) == len(registry.live) == registry.last_seq == 1


async def test_50_submits_with_one_key_make_one_run(registry: Registry) -> None:
    """One of 50 simultaneous submits with the same key makes the run; 49 return it."""
    digest = new_run().digest
    done = await asyncio.gather(*(add(registry, new_run(digest=digest), key="k") for _ in range(50)))
    assert len({run.run_id for run, _ in done}) == 1


async def test_one_of_simultaneous_submits_with_fail_is_accepted(registry: Registry) -> None:
    """Of 20 equal submits in one batch one is accepted; unrelated submits of the batch all are."""
    digest = new_run().digest
    done = await asyncio.gather(
        *(add(registry, new_run(digest=digest), Dedup.FAIL) for _ in range(20)),
        *(add(registry, new_run(), Dedup.FAIL) for _ in range(20)),
        return_exceptions=True,
    )
    assert [isinstance(answer, Conflict) for answer in done].count(True) == 19
    assert len(registry.live) == 21


async def test_a_name_that_is_not_utf8_fails_only_its_submit(registry: Registry) -> None:
    """A name that cannot be stored as UTF-8 fails its own submit and no other."""
    bad = add(registry, new_run(name="\udcff"))
    good = add(registry, new_run())
    first, second = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(first, UnicodeEncodeError)
    assert not isinstance(second, BaseException)
