"""Exit 0 immediately and leave a helper process in its own session; print the pid of the helper."""

import subprocess
import sys

helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(helper.pid, flush=True)
