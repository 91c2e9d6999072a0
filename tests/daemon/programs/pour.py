"""Write 10 MB/s on both pipes for some seconds; exit 9 if that took more than 6 s longer.

A short suspension of the machine does not count: the program catches up, and the limit allows for it.
"""

import sys
import threading
import time
from typing import IO

SECONDS = int(sys.argv[1])
BLOCK = b"0000000" * 14979 + b"\n"


def pour(stream: IO[bytes]) -> None:
    began = time.monotonic()
    for n in range(100 * SECONDS):
        stream.write(BLOCK)
        stream.flush()
        time.sleep(max(0.0, began + n / 100 - time.monotonic()))


began = time.monotonic()
threads = [threading.Thread(target=pour, args=(stream.buffer,)) for stream in (sys.stdout, sys.stderr)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(0 if time.monotonic() - began < SECONDS + 6 else 9)
