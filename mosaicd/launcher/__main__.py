"""`python -I -m mosaicd.launcher --fd N --containment MODE`: see mosaicd.launcher.command."""

import os
import sys

from mosaicd import crash_points
from mosaicd.launcher import cgroup_root, serve


def main(arguments: list[str]) -> int:
    """Serve the order socket whose number follows --fd; 2 on any other command line."""
    is_right = len(arguments) == 4 and arguments[::2] == ["--fd", "--containment"]
    if not is_right or not arguments[1].isdecimal() or arguments[3] not in cgroup_root.MODES:
        modes = "|".join(cgroup_root.MODES)
        sys.stderr.write(f"usage: python -I -m mosaicd.launcher --fd N --containment {modes}\n")
        return 2
    if crash_at := os.environ.get(crash_points.VARIABLE):
        crash_points.arm(crash_at)
    return serve.serve(int(arguments[1]), arguments[3])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
