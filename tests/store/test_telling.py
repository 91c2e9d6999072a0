"""What is committed is told to every subscriber, or the daemon does not go on."""

from collections.abc import Sequence
from pathlib import Path

from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Committed, Registry
from tests.store.building import new_run, submission


async def test_a_subscriber_that_fails_silences_nobody_and_is_fatal(path: Path) -> None:
    """The others are told all the same; whoever runs the daemon learns that one was not."""
    told: list[int] = []
    fatal: list[BaseException] = []

    def fails(batch: Sequence[Committed]) -> None:
        raise KeyError("a mistake of ours")

    registry = await Registry.open(path, on_fatal=fatal.append)
    registry.subscribe(fails)
    registry.subscribe(lambda batch: told.extend(committed.seq for committed in batch))
    await registry.add(submission(new_run()), dedup=Dedup.NEW)
    assert told == [1]
    assert [str(error) for error in fatal] == ["'a mistake of ours'"]
    await registry.close()
