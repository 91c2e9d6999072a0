"""Print 1, 2, 3 ... until the file named on the command line exists; then exit 7."""

import os
import sys
import time

number = 0
while not os.path.exists(sys.argv[1]):
    number += 1
    print(number, flush=True)
    time.sleep(0.001)
sys.exit(7)
