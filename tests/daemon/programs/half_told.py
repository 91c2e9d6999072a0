"""Announce stacks, and when asked for them be held up for half a second before the thread that was asked."""

import os
import signal
import time

HEAD = "hread 0x%d (most recent call first):"

with open(os.environ["MOSAIC_STACKS_FILE"], "a", buffering=1) as stacks:

    def tell(*_: object) -> None:
        print("T" + HEAD % 1, '  File "beat.py", line 1 in wait', "", sep="\n", file=stacks)
        time.sleep(0.5)
        print("Current t" + HEAD % 2, '  File "train.py", line 7 in step', sep="\n", file=stacks)

    signal.signal(signal.SIGUSR1, tell)
    print(f"mosaic-stacks pid={os.getpid()} signal={signal.SIGUSR1:d}", file=stacks)
    print("begun", flush=True)
    time.sleep(60)
