"""Every subscriber gets every committed event, or the daemon exits."""

from collections.abc import Sequence
from pathlib import Path

from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Committed, Registry
from tests.store.building import new_run, submission


async def test_a_failing_subscriber_is_fatal_and_the_others_are_called(path: Path) -> None:
    """The other subscribers get the event, and the error is reported as fatal."""
    received: list[int] = []
    fatal: list[BaseException] = []

    def fails(batch: Sequence[Committed]) -> None:
        raise KeyError("a programming error")

    registry = await Registry.open(path, on_fatal=fatal.append)
    registry.subscribe(fails)
    registry.subscribe(lambda batch: received.extend(committed.seq for committed in batch))
    await registry.add(submission(new_run()), dedup=Dedup.NEW)
    assert received == [1]
    assert [str(error) for error in fatal] == ["'a programming error'"]
    await registry.close()
