"""A full disk fails requests and no run: requests are refused clearly, and work again once there is space."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mosaicd.core.fsm import Kind, replay
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.errors import Unavailable
from mosaicd.protocol.states import Dedup, State
from mosaicd.store.registry import Registry
from mosaicd.store.rows import read_run
from tests.harness.places import ROOT
from tests.store.building import event, ledger, new_run, row, submission, to_exec, to_term


async def set_limit(registry: Registry, pages: int | None) -> None:
    """Limit the growth of the database to `pages` (None: no limit), like a full disk."""

    def work(connection: sqlite3.Connection) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {1 << 30 if pages is None else used + pages}")

    await registry._writer.send_outside(work)


async def submit_until_full(registry: Registry) -> list[Run]:
    """Submit until the disk is full; return every run that was acknowledged."""
    accepted: list[Run] = []
    with pytest.raises(Unavailable) as caught:
        for _ in range(1000):
            run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
            accepted.append(run)
    assert (caught.value.data["reason"], "full" in caught.value.data["detail"]) == ("registry_disk", True)
    assert str(registry.path) in caught.value.message
    return accepted


async def test_a_full_disk_refuses_and_recovers(registry: Registry, path: Path) -> None:
    """Refused submits leave nothing in file or memory; the daemon works again once there is space."""
    await set_limit(registry, 10)
    accepted = await submit_until_full(registry)
    assert set(registry.live) == {run.run_id for run in accepted}
    await registry.flush()  # the writer works, so the watchdog is satisfied
    await set_limit(registry, None)
    run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
    await registry.record(run.run_id, *to_exec(), *to_term())
    await registry.record(accepted[0].run_id, *to_exec())
    assert registry.last_seq == len(accepted) + 1 + 6 + 4


async def test_all_of_a_batch_that_does_not_fit_are_refused(registry: Registry) -> None:
    """If a batch cannot be committed, none of its requests is acknowledged, and each can be repeated."""
    await set_limit(registry, 3)
    done = await asyncio.gather(
        *(registry.add(submission(new_run()), dedup=Dedup.NEW) for _ in range(100)), return_exceptions=True
    )
    assert {type(answer) for answer in done} == {Unavailable}
    assert not registry.live
    await set_limit(registry, None)
    again = await asyncio.gather(*(registry.add(submission(new_run()), dedup=Dedup.NEW) for _ in range(100)))
    assert len(again) == len(registry.live) == registry.last_seq == 100


async def test_an_exit_that_was_refused_can_be_reported_again(registry: Registry) -> None:
    """A run whose exit was refused is unchanged and unlocked, and accepts the same fact later."""
    runs = [(await registry.add(submission(new_run()), dedup=Dedup.NEW))[0] for _ in range(30)]
    for run in runs:
        await registry.record(run.run_id, *to_exec())
    await set_limit(registry, 0)
    big = event(Kind.EXITED, exit_code=0, error="x" * 10_000)
    done = await asyncio.gather(*(registry.record(run.run_id, big) for run in runs), return_exceptions=True)
    assert {type(answer) for answer in done} == {Unavailable}
    assert {run.state for run in registry.live.values()} == {State.EXEC}
    assert all(run.exit is None for run in registry.live.values())
    await set_limit(registry, None)
    for run in runs:
        await registry.record(run.run_id, big)
        await registry.record(run.run_id, to_term()[1])
    assert not registry.live


async def test_last_values_wait_for_space(registry: Registry, path: Path) -> None:
    """Progress that could not be written stays in memory and is written later."""
    run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
    await set_limit(registry, 0)
    registry.advance(run.run_id, Progress(steps=5, metrics={f"m{n}": n for n in range(2000)}))
    await registry.flush()
    assert "m1" not in row(path, run.run_id)["progress"]
    await set_limit(registry, None)
    await registry.flush()
    assert "m1" in row(path, run.run_id)["progress"]


CHILD = """
import asyncio, pathlib, resource, signal, sys
from mosaicd.protocol.errors import Unavailable
from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Registry
from tests.store.building import new_run, submission, to_exec

async def main(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    registry = await Registry.open(path)
    size = path.with_name(path.name + "-wal").stat().st_size + 50_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    accepted, refused = [], 0
    while refused < 3:
        try:
            run, _ = await registry.add(submission(new_run()), dedup=Dedup.NEW)
            accepted.append(run.run_id)
        except Unavailable as error:
            refused += 1
            assert error.data["reason"] == "registry_disk", error.data
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for run_id in accepted:
        await registry.record(run_id, *to_exec())
    print(len(accepted), flush=True)
    await registry.close()

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def test_a_file_size_limit_refuses_writes_until_it_is_lifted(path: Path) -> None:
    """If the WAL cannot grow during a commit, writes are refused; the file stays intact."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accepted = int(done.stdout)
    assert accepted > 0

    async def live_runs() -> dict[str, Run]:
        registry = await Registry.open(path)
        live = dict(registry.live)
        assert registry.quarantine == []
        await registry.close()
        return live

    live = asyncio.run(live_runs())
    assert len(live) == accepted
    for run_id, run in live.items():
        assert replay(ledger(path, run_id)) == run == read_run(row(path, run_id))
        assert run.state is State.EXEC
