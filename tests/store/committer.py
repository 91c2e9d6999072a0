"""Child process of test_kill: write to a registry and report each acknowledgement, until killed.

Started once; every line on stdin forks a committer, so that a kill costs a fork and no interpreter start.
Lines on stdout: `pid N`, then one `ack KIND RUN_ID REV` for each answer, written after the await returned.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from mosaicd.core.fsm import Kind
from mosaicd.core.run import Run
from mosaicd.protocol import ulid
from mosaicd.protocol.states import Dedup, State
from mosaicd.store.registry import Registry
from tests.store.building import event, new_run, submission, to_exec, to_term

CALLERS = 6

LOST = event(Kind.LOST, kind="shim_lost")
GAVE_UP = event(Kind.GAVE_UP, outcome="interrupted", cause={"kind": "shim_lost"})


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def end(registry: Registry, run: Run) -> None:
    """End the runs of earlier committers, so that a start does not take longer each time."""
    events = [event(Kind.WITHDRAWN)] if run.state is State.INIT else [LOST, GAVE_UP]
    after = await registry.record(run.run_id, *events)
    say("ack", "end", after.run_id, after.rev)


async def live_and_die(path: Path, seed: int) -> None:
    registry = await Registry.open(path)
    assert not registry.quarantine
    await asyncio.gather(*(end(registry, run) for run in registry.live.values()))
    luck = random.Random(seed)

    async def caller() -> None:
        while True:
            made = new_run(run_id=ulid.encode(seed, luck.randbytes(10)))
            run, _ = await registry.add(submission(made), dedup=Dedup.NEW)
            say("ack", "add", run.run_id, run.rev)
            for step in (*to_exec(), *to_term()):
                run = await registry.record(run.run_id, step)
                say("ack", step.kind, run.run_id, run.rev)
                if luck.random() < 0.02:
                    break

    async def checkpoints() -> None:
        while True:
            await registry.checkpoint()

    await asyncio.gather(checkpoints(), *(caller() for _ in range(CALLERS)))


def main() -> None:
    path = Path(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            say("pid", os.getpid())
            asyncio.run(live_and_die(path, int(line)))
        os.waitpid(pid, 0)
        say("dead", pid)


if __name__ == "__main__":
    main()
