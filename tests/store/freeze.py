"""Make the frozen registry of this version: `python -m tests.store.freeze tests/store/frozen/vN.sqlite3`.

Note: run this script once before VERSION is raised, and never again.  The file must load for ever.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Progress
from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Registry
from tests.store.building import (
    AT,
    dispatched,
    event,
    new_run,
    registered,
    spawned,
    submission,
    to_exec,
    to_term,
)

LOST = event(Kind.LOST, kind="shim_lost")
LIMIT = event(Kind.LIMIT_REACHED, kind="time_limit", reason="1h")
KILLED = {"signal": 15, "stop": {"kind": "time_limit", "forced": False}, "finished_at": AT + 9}

#: name -> the events of a run in the frozen file.
EVENTS_OF: dict[str, Sequence[Event]] = {
    "waits": (event(Kind.HOLD), event(Kind.SET, priority=7, labels={"a": "b"})),
    "shakes": (dispatched(1),),
    "ready": (dispatched(2), registered(), spawned()),
    "works": to_exec(0, 3),
    "frozen": (*to_exec(4), event(Kind.PAUSE_REQUESTED, mode="freeze"), event(Kind.PAUSED)),
    "left": (*to_exec(5), event(Kind.PAUSE_REQUESTED, mode="release"),
             event(Kind.EXITED, exit_code=0, released=True, steps=500), event(Kind.RELEASED)),
    "broken": (*to_exec(5), event(Kind.EXITED, exit_code=3),
               event(Kind.BROKE, cause={"kind": "exit_code", "exit_code": 3}), event(Kind.UNKILLABLE)),
    "again": (*to_exec(), LOST, event(Kind.REQUEUED, not_before=AT + 60, cause={"kind": "shim_lost"})),
    "done": (*to_exec(), *to_term()),
    "seven": (*to_exec(), event(Kind.EXITED, exit_code=7),
              event(Kind.BROKE, cause={"kind": "exit_code", "exit_code": 7}),
              event(Kind.GAVE_UP, outcome="failed", cause={"kind": "exit_code", "exit_code": 7})),
    "stopped": (*to_exec(), event(Kind.STOP_REQUESTED, reason="enough", grace_s=0),
                event(Kind.EXITED, signal=15, stop={"kind": "by_user", "who": "ada"}),
                event(Kind.FINISHED, outcome="cancelled", cause={"kind": "by_user", "who": "ada"})),
    "late": (*to_exec(), LIMIT, event(Kind.EXITED, **KILLED),
             event(Kind.FINISHED, outcome="timeout", cause={"kind": "time_limit", "signal": 15})),
    "lost": (*to_exec(), LOST, event(Kind.GAVE_UP, outcome="interrupted", cause={"kind": "shim_lost"})),
    "never": (event(Kind.STOP_REQUESTED), event(Kind.WITHDRAWN)),
}  # fmt: skip


async def freeze(path: Path) -> None:
    """Write the runs of EVENTS_OF into a new registry at `path`, as one file without a WAL."""
    registry = await Registry.open(path)
    for name, events in EVENTS_OF.items():
        run = new_run(name=name, labels={"sweep": "ä"}, retries=1, key=f"key-{name}")
        await registry.add(submission(run), dedup=Dedup.NEW, key=run.key)
        await registry.record(run.run_id, *events)
        registry.advance(run.run_id, Progress(telemetry_seq=12, steps=1200, metrics={"loss": 0.25}))
    await registry.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


if __name__ == "__main__":
    asyncio.run(freeze(Path(sys.argv[1])))
