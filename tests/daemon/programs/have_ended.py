"""Exit 1 if any of the processes named on the command line is alive."""

import sys
from pathlib import Path


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


sys.exit(any(map(is_alive, sys.argv[1:])))
