"""Child process of test_kill: write to a registry and print each acknowledgement, until killed.

Each line on stdin forks a committer, so a kill costs a fork and not the start of an interpreter.
Lines on stdout: `pid N`, then one `ack KIND RUN_ID REV` for each acknowledged write, and `dead N`.
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


def print_line(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def end(registry: Registry, run: Run) -> None:
    """End the runs of earlier committers, so that a start does not take longer each time."""
    events = [event(Kind.WITHDRAWN)] if run.state is State.INIT else [LOST, GAVE_UP]
    after = await registry.record(run.run_id, *events)
    print_line("ack", "end", after.run_id, after.rev)


async def commit_until_killed(path: Path, seed: int) -> None:
    registry = await Registry.open(path)
    assert not registry.quarantine
    await asyncio.gather(*(end(registry, run) for run in registry.live.values()))
    random_numbers = random.Random(seed)

    async def caller() -> None:
        while True:
            made = new_run(run_id=ulid.encode(seed, random_numbers.randbytes(10)))
            run, _ = await registry.add(submission(made), dedup=Dedup.NEW)
            print_line("ack", "add", run.run_id, run.rev)
            for step in (*to_exec(), *to_term()):
                run = await registry.record(run.run_id, step)
                print_line("ack", step.kind, run.run_id, run.rev)
                if random_numbers.random() < 0.02:
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
            print_line("pid", os.getpid())
            asyncio.run(commit_until_killed(path, int(line)))
        os.waitpid(pid, 0)
        print_line("dead", pid)


if __name__ == "__main__":
    main()
