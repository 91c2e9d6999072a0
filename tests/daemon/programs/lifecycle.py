"""A worker that prints only lifecycle lines and ends when the file named on the command line exists."""

import json
import os
import sys
import time


def emit(event: str) -> None:
    line = {"event": event, "payload": {}, "run_id": os.environ["MOSAIC_RUN_ID"], "timestamp": time.time()}
    print(json.dumps(line), flush=True)


emit("run_started")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
emit("run_completed")
