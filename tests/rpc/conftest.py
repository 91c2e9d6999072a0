"""Fixtures: the daemon's server for one test, with a check for leaked tasks."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.serving import TIMEOUT_S, Peer, Serving

Start = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Yield a function that starts servers; at the end, none of their tasks may remain."""
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
    remaining = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
    if remaining:
        await asyncio.wait(remaining, timeout=TIMEOUT_S)
    assert all(task.done() for task in remaining)
    for home in homes:
        shutil.rmtree(home)


@pytest.fixture
async def serving(start: Start) -> Serving:
    """Return a server with the default settings."""
    return await start()


@pytest.fixture
async def peer(serving: Serving) -> Peer:
    """Return a client of the server."""
    return await serving.peer()


class Served:
    """A server with its own event loop, for tests that are no coroutines (hypothesis)."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._home = Path(tempfile.mkdtemp(prefix="mosaic-"))
        self.serving = self._runner.run(Serving.start(self._home))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` on the event loop of the server."""
        self._runner.run(work)

    def close(self) -> None:
        """Stop the server, close its loop and remove its directory."""
        self._runner.run(self.serving.close())
        self._runner.close()
        shutil.rmtree(self._home)


@pytest.fixture
def served() -> Iterator[Served]:
    """Yield a server with its own event loop."""
    made = Served()
    yield made
    made.close()
