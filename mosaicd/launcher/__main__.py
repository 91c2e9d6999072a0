"""`python -I -m mosaicd.launcher --fd N`: see mosaicd.launcher.command."""

import os
import sys

from mosaicd import crash_points
from mosaicd.launcher import serve


def main(arguments: list[str]) -> int:
    """Serve the order socket whose number follows --fd; 2 on any other command line."""
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        sys.stderr.write("usage: python -I -m mosaicd.launcher --fd N\n")
        return 2
    if crash_at := os.environ.get(crash_points.VARIABLE):
        crash_points.arm(crash_at)
    return serve.serve(int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
