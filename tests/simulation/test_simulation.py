"""Thousands of simulated hours of submits, faults, crashes and reboots over the real core and store."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from tests.simulation.steps import Step, history, shortest
from tests.simulation.world import World

LENGTH = 150
DEFAULTS = (("LIVES", "100"), ("SEED", "1000"))
#: Registries are in memory if possible, because the speed of the disk is not tested.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


async def live(steps: list[Step]) -> float:
    """Run `steps`, then let every run end; return the simulated hours."""
    with tempfile.TemporaryDirectory(prefix="mosaic-simulation-", dir=MEMORY) as directory:
        world = World(Path(directory))
        await world.open()
        try:
            for step in steps:
                await world.take(step)
            return await world.finish()
        finally:
            await world.close()


async def check_seed(seed: int) -> float:
    """Run the history of a seed; if an invariant breaks, fail with the shortest history that breaks it."""
    steps = history(seed, LENGTH)
    try:
        return await live(steps)
    except Exception as error:
        fault = type(error)

        async def is_failing(some: list[Step]) -> bool:
            try:
                await live(some)
            except fault:
                return True
            return False

        minimal = await shortest(steps, is_failing)
        text = "\n".join(f"  {step}" for step in minimal)
        raise AssertionError(f"seed {seed}: {error!r}; the shortest failing history:\n{text}") from error


@pytest.mark.parametrize("seed", range(8))
async def test_invariants_hold_in_random_histories(seed: int) -> None:
    """No run is lost, started twice or stuck; slots have one holder, TERM is final, ledger and rows agree."""
    await check_seed(seed)


async def test_clock_that_is_set_back_does_not_change_the_order(tmp_path: Path) -> None:
    """Runs of one owner, priority and size start in the order of submission after the clock was set back,
    also after a crash of the daemon."""
    world = World(tmp_path)
    await world.open()
    try:
        for step in (Step("submit", value=4), Step("submit", value=4), Step("set_clock", value=-3600)):
            await world.take(step)
        await world.take(Step("submit", value=4))
        await world.take(Step("crash"))
        await world.finish()
    finally:
        await world.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_invariants_hold_for_thousands_of_simulated_hours() -> None:
    """In a hundred histories (MOSAIC_SIMULATION_LIVES, _SEED) of thousands of hours every invariant holds."""
    lives, first = (int(os.environ.get(f"MOSAIC_SIMULATION_{name}", n)) for name, n in DEFAULTS)
    began, hours = time.monotonic(), 0.0
    for seed in range(first, first + lives):
        hours += await check_seed(seed)
    minutes = (time.monotonic() - began) / 60
    print(f"simulated {hours:,.0f} hours in {minutes:.1f} minutes, seeds {first}..{first + lives - 1}")
    assert hours > 10 * lives


async def test_failing_history_is_reduced_to_the_needed_steps() -> None:
    """The shortest history keeps only the steps that the failure needs."""
    steps = history(1, 200)
    wanted = {index for index, step in enumerate(steps) if step.what in ("crash", "reboot")}
    needed = [steps[min(wanted)], steps[max(wanted)]]

    async def is_failing(some: list[Step]) -> bool:
        return all(step in some for step in needed)

    assert len(await shortest(steps, is_failing)) == 2
