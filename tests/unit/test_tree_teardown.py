"""The time that a shim has to end a process tree: the complete grace period, which a stop can shorten."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mosaicd.config import Paths, Settings
from mosaicd.core.fsm import Action, Event, Kind, Place, apply
from mosaicd.core.run import Run
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.dispatch.tree_teardown import MOST_PATIENCE_S, TreeTeardown
from mosaicd.protocol.records.orders import TeardownOrder
from mosaicd.rundirs.directories import RunDirs
from tests.harness.clock import ManualClock
from tests.unit.lifecycle import run_in

LONG_S = 6 * MOST_PATIENCE_S


class Bench:
    """A teardown of a tree that is never empty; `graces` has the grace period of each ordered teardown."""

    def __init__(self, home: Path, *, is_attached: bool) -> None:
        settings = Settings(paths=Paths(home / "state", home / "s"))
        unused: Any = None
        order_builder = OrderBuilder(RunDirs(home / "runs"), unused, settings, home / "s")
        self.clock = ManualClock()
        self.graces: list[float] = []
        self._is_attached = is_attached
        self._is_given_up = False
        later: Any = lambda *_: None  # noqa: E731 -- the checks come from `watch`
        shims: Any = self
        self.teardowns = TreeTeardown(shims, shims, order_builder, settings, self.clock, shims, shims, later)

    async def record_outcome(self, run: Run, action: Action, event: Any) -> None:
        pass

    def send_stop(self, run: Run) -> None:
        pass

    def is_alive(self, run_id: str, attempt: int) -> bool:
        return not self._is_given_up

    def is_attached(self, run_id: str, attempt: int) -> bool:
        return self._is_attached

    def given_up_shim(self, run_id: str) -> None:
        return None

    def give_up(self, run_id: str) -> None:
        self._is_given_up = True

    async def check_tree(self, *_: Any) -> tuple[bool, list[int]]:
        return False, [7]

    async def teardown(self, order: TeardownOrder) -> None:
        self.graces.append(order.limits.grace_s)
        self._is_given_up = False

    async def watch(self, run: Run, seconds: float) -> None:
        """Check the tree 100 times during `seconds`."""
        for _ in range(100):
            await self.teardowns.conclude_or_tear_down(run)
            self.clock.advance(seconds / 100)
        await self.teardowns.conclude_or_tear_down(run)


@pytest.fixture
def run() -> Run:
    """Return a faulted run with a long grace period."""
    return replace(run_in(Place.FAULT), exit=None, stop=None, grace_s=LONG_S)


@pytest.mark.parametrize("is_attached", [True, False])
async def test_no_shim_is_given_up_within_the_grace_period(
    run: Run, is_attached: bool, tmp_path: Path
) -> None:
    """A shim that lives is replaced only after the grace period, because each new shim restarts it."""
    bench = Bench(tmp_path, is_attached=is_attached)
    await bench.watch(run, LONG_S)
    assert bench.graces == []
    await bench.watch(run, LONG_S)
    assert bench.graces == [LONG_S], "after the grace period another teardown shim is ordered"


async def test_a_stop_shortens_the_grace_period_of_a_teardown(run: Run, tmp_path: Path) -> None:
    """A teardown shim receives no stop, so another teardown shim is ordered with the new grace period."""
    bench = Bench(tmp_path, is_attached=False)
    await bench.watch(run, 60.0)
    stopped = apply(run, Event(Kind.STOP_REQUESTED, 1.0, "ada", {"grace_s": 0.0}))
    await bench.watch(stopped, 60.0)
    assert bench.graces and set(bench.graces) == {0.0}
