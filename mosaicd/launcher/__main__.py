"""`python -I -m mosaicd.launcher --fd N --containment MODE [--descriptors N]`: see `launcher.command`."""

import os
import resource
import sys

from mosaicd import crash_points
from mosaicd.launcher import cgroup_root, serve


def main(arguments: list[str]) -> int:
    """Serve the order socket whose number follows --fd; return 2 for an invalid command line."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if not _is_valid(arguments, options):
        modes = "|".join(cgroup_root.MODES)
        sys.stderr.write(
            f"usage: python -I -m mosaicd.launcher --fd N --containment {modes} [--descriptors N]\n"
        )
        return 2
    if "--descriptors" in options:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(options["--descriptors"]), hard))
    if crash_at := os.environ.get(crash_points.VARIABLE):
        crash_points.arm(crash_at)
    return serve.serve(int(options["--fd"]), options["--containment"])


def _is_valid(arguments: list[str], options: dict[str, str]) -> bool:
    """Return whether the command line has each option once, with a valid value."""
    required = {"--fd", "--containment"}
    return (
        2 * len(options) == len(arguments)
        and required <= options.keys() <= required | {"--descriptors"}
        and options["--fd"].isdecimal()
        and options["--containment"] in cgroup_root.MODES
        and options.get("--descriptors", "0").isdecimal()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
