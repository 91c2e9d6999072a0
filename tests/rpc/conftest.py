"""Fixtures: the wire side of a daemon, served for one test, searched for leftovers afterwards."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.serving import PATIENCE_S, Peer, Serving

Start = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start servings with settings of their own; at the end no task of theirs may be left."""
    homes: list[Path] = []
    servings: list[Serving] = []
    before = asyncio.all_tasks()

    async def begin(**options: Any) -> Serving:
        home = Path(tempfile.mkdtemp(prefix="mosaic-"))  # short: a socket's path has 107 bytes
        homes.append(home)
        servings.append(await Serving.start(home, **options))
        return servings[-1]

    yield begin
    for serving in servings:
        await serving.close()
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
    if left:
        await asyncio.wait(left, timeout=PATIENCE_S)
    assert all(task.done() for task in left)
    for home in homes:
        shutil.rmtree(home)


@pytest.fixture
async def serving(start: Start) -> Serving:
    """A serving with the defaults."""
    return await start()


@pytest.fixture
async def peer(serving: Serving) -> Peer:
    """A client of it."""
    return await serving.peer()


class Served:
    """A serving on a loop of its own, for tests that are no coroutines (hypothesis)."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._home = Path(tempfile.mkdtemp(prefix="mosaic-"))
        self.serving = self._runner.run(Serving.start(self._home))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` on the serving's loop."""
        self._runner.run(work)

    def close(self) -> None:
        """End it all."""
        self._runner.run(self.serving.close())
        self._runner.close()
        shutil.rmtree(self._home)


@pytest.fixture
def served() -> Iterator[Served]:
    """A serving with a loop of its own."""
    made = Served()
    yield made
    made.close()
