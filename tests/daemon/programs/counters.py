"""Count in a file; a child in its own session counts in another file."""

import subprocess
import sys
import time

if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
name = sys.argv[1] if len(sys.argv) > 1 else "leader"
number = 0
while True:
    number += 1
    with open(name, "w") as file:
        file.write(str(number))
    time.sleep(0.005)
