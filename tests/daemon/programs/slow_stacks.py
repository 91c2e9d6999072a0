"""Announce stacks; when they are requested, pause for half a second before the stack of the main thread."""

import os
import signal
import time

HEAD = "hread 0x%d (most recent call first):"

with open(os.environ["MOSAIC_STACKS_FILE"], "a", buffering=1) as stacks:

    def write_stacks(*_: object) -> None:
        print("T" + HEAD % 1, '  File "beat.py", line 1 in wait', "", sep="\n", file=stacks)
        time.sleep(0.5)
        print("Current t" + HEAD % 2, '  File "train.py", line 7 in step', sep="\n", file=stacks)

    signal.signal(signal.SIGUSR1, write_stacks)
    print(f"mosaic-stacks pid={os.getpid()} signal={signal.SIGUSR1:d}", file=stacks)
    print("begun", flush=True)
    time.sleep(60)
