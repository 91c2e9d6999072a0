"""A tree that does not want to go: TERM ignored, a child in its own session, a double-forked grandchild.

The grandchild even cleared its environment.  Prints the pids of both.
"""

import signal
import subprocess
import sys
import time

HOLD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
MIDDLE = """
import subprocess, sys
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, env={}, **quiet).pid)
"""

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", HOLD], start_new_session=True)
middle = subprocess.run([sys.executable, "-c", MIDDLE, HOLD], capture_output=True, check=True)
print(child.pid, int(middle.stdout), flush=True)
time.sleep(600)
