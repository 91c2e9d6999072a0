"""Child of test_kill: writes to a registry as fast as it can, says what was acknowledged, until it is killed.

Started once; every line on stdin forks a committer, so that a kill costs a fork and no interpreter start.
Lines on stdout: `pid N`, then one `ack KIND RUN_ID REV` for each answer, written after the await returned.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from mosaicd.core.fsm import Kind
from mosaicd.protocol.states import Dedup
from mosaicd.store.registry import Registry
from tests.store.building import event, new_run, submission, to_exec, to_term

CALLERS = 6


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def live_and_die(path: Path, seed: int) -> None:
    registry = await Registry.open(path)
    assert not registry.quarantine
    for run_id in list(registry.live)[:20]:  # keep the mirror small: end what earlier lives left
        await registry.record(run_id, event(Kind.STOP_REQUESTED))
        say("ack", "stop", run_id, registry.live[run_id].rev)
    luck = random.Random(seed)

    async def caller() -> None:
        while True:
            made = new_run(run_id="", digest=os.urandom(8).hex())
            run_id = f"{luck.getrandbits(125):026X}"[:26]
            run, _ = await registry.add(
                submission(made.__class__.from_dict({**made.to_dict(), "run_id": run_id})), dedup=Dedup.NEW
            )
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
