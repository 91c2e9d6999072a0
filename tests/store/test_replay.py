"""A replay of the events gives the rows: random walks over the table, with real SQLite and restarts."""

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaicd.core.fsm import TABLE, Event, IllegalTransition, Kind, place, replay
from mosaicd.core.run import Run
from mosaicd.protocol.errors import NotFound
from mosaicd.protocol.states import Dedup
from mosaicd.store.history import History
from mosaicd.store.registry import Committed, Registry
from mosaicd.store.rows import read_run
from tests.store.building import AT, ledger, new_run, row, submission

#: Evidence for each kind; `free` are the free slots.
DATA: dict[Kind, Callable[[Run, list[int]], dict[str, Any]]] = {
    Kind.STOP_REQUESTED: lambda run, free: {"reason": "r", "grace_s": 0.5},
    Kind.PAUSE_REQUESTED: lambda run, free: {"mode": "freeze"},
    Kind.SET: lambda run, free: {"priority": run.priority + 1, "labels": {"ä": "😀 \udcff"}},
    Kind.DISPATCHED: lambda run, free: {
        "attempt": run.attempt + 1,
        "nonce": "n",
        "slots": free[:2],
        "cpus": 2,
    },
    Kind.REGISTERED: lambda run, free: {"shim_pid": 1, "shim_start_ticks": 2},
    Kind.SPAWNED: lambda run, free: {
        "pid": 3,
        "start_ticks": 4,
        "boot_id": "b",
        "containment": "process-group",
    },
    Kind.LIMIT_REACHED: lambda run, free: {"kind": "time_limit", "reason": "1h"},
    Kind.EXITED: lambda run, free: {
        "exit_code": 3,
        "steps": 5,
        "rusage": {"utime_s": 0.25},
        "finished_at": AT + 7,
    },
    Kind.FINISHED: lambda run, free: {"outcome": "succeeded", "cause": None},
    Kind.BROKE: lambda run, free: {"cause": {"kind": "exit_code", "exit_code": 3}},
    Kind.SPAWN_FAILED: lambda run, free: {"error": "no such file"},
    Kind.DEADLINE_MISSED: lambda run, free: {"kind": "heartbeat_lost", "after_s": 300},
    Kind.LOST: lambda run, free: {"kind": "shim_lost"},
    Kind.REQUEUED: lambda run, free: {"not_before": AT + 60, "cause": {"kind": "shim_lost"}},
    Kind.GAVE_UP: lambda run, free: {"outcome": "failed", "cause": {"kind": "exit_code"}},
}


def some_event(run: Run, kind: Kind, at: float, free: list[int]) -> Event:
    return Event(kind, at, "ada", DATA[kind](run, free) if kind in DATA else {})


class Walk:
    """A registry whose runs get events chosen by numbers, with all events that a subscriber received."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[Committed] = []

    async def open(self) -> None:
        self.registry = await Registry.open(self.path)
        self.registry.subscribe(self.received.extend)

    async def reopen(self) -> None:
        before = dict(self.registry.live)
        await self.registry.close()
        await self.open()
        assert dict(self.registry.live) == before

    async def step(self, run_id: str, number: int, at: float) -> None:
        run = self.registry.live.get(run_id)
        if run is None:
            with pytest.raises(NotFound):
                await self.registry.record(run_id, Event(Kind.SET, AT))
            return
        legal = sorted(TABLE[place(run)])
        kinds = legal if number % 5 else sorted(Kind)
        kind = kinds[number // 7 % len(kinds)]
        held = {slot for other in self.registry.live.values() for slot in other.slots}
        chosen = some_event(run, kind, at, sorted(set(range(6)) - held))
        if kind in legal:
            assert (await self.registry.record(run_id, chosen)).rev == run.rev + 1
        else:
            with pytest.raises(IllegalTransition):
                await self.registry.record(run_id, chosen)
            assert self.registry.live[run_id] == run

    async def check(self, ids: list[str]) -> None:
        live = dict(self.registry.live)
        assert self.registry.quarantine == []
        history = History(self.path)
        stored = await history.events(0, 10_000)
        await history.close()
        assert (
            [committed.seq for committed in self.received]
            == [e.seq for e in stored]
            == list(range(1, len(stored) + 1))
        )
        for run_id in ids:
            final = replay(ledger(self.path, run_id))
            assert final == read_run(row(self.path, run_id))
            assert live.get(run_id, final) == final
            assert (run_id in live) == (not final.is_final)
            mine = [committed.run for committed in self.received if committed.run.run_id == run_id]
            assert [run.rev for run in mine] == list(range(1, final.rev + 1))
            assert mine[-1] == final


async def walk(path: Path, choices: list[int], runs: int) -> None:
    """Drive `runs` runs by `choices` with a restart, then compare ledger, rows, live runs and subscribers."""
    walker = Walk(path)
    await walker.open()
    try:
        added = [
            await walker.registry.add(submission(new_run(retries=3)), dedup=Dedup.NEW) for _ in range(runs)
        ]
        ids = [run.run_id for run, _ in added]
        for step, choice in enumerate(choices):
            if step == len(choices) // 2:
                await walker.reopen()
            await walker.step(ids[choice % runs], choice, AT + step)
        await walker.check(ids)
    finally:
        await walker.registry.close()


@settings(max_examples=25, deadline=None, database=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40), st.integers(1, 4))
def test_replay_of_events_equals_rows(choices: list[int], runs: int) -> None:
    """After any walk and a restart, the ledger gives the rows, live runs and subscribers' events."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(walk(Path(folder) / "registry.sqlite3", choices, runs))


def test_replay_equals_rows_after_a_thousand_events(tmp_path: Path) -> None:
    """After a thousand random events on twelve runs, the ledger gives the rows."""
    random_numbers = random.Random(4)
    asyncio.run(
        walk(tmp_path / "registry.sqlite3", [random_numbers.randrange(10_000) for _ in range(1000)], 12)
    )
