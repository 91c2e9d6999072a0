"""A process tree that resists: TERM is ignored, a child has its own session, a grandchild is double-forked.

The grandchild also has an empty environment. The program prints the pids of both.
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
