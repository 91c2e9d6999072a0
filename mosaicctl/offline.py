"""Work on the registry without a running daemon: mosaicctl runs the program mosaicd for it.

mosaicctl itself never opens a registry.  The program is the mosaicd that is installed with this client, and
runs with the same interpreter; a package mosaicd in the working directory is not used.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import mosaicd
from mosaicctl.values import nonempty
from mosaicd.protocol import Json


class Refused(Exception):
    """mosaicd refused or failed; the text is its error message."""


def run_mosaicd(*arguments: str) -> Json:
    """Run `mosaicd ARGUMENTS` and return the JSON that it prints; raise Refused with its error message."""
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(mosaicd.__file__)))
    path = os.pathsep.join([package_parent, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mosaicd", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        if done.returncode == 0:
            document: Json = json.loads(done.stdout)
            return document
    except ValueError:
        pass
    message = done.stderr.strip() or f"mosaicd printed {done.stdout[:200]!r} instead of JSON"
    raise Refused(message.removeprefix("mosaicd: "))


def location_arguments(parser: Any, config: Callable[[str], str] = nonempty) -> None:
    """Add --state-dir and --config, for a state directory that is not the default one.

    `config` is the argparse type of --config: `doctor` takes any path and reports a missing file, `restore`
    refuses a file that cannot be read.
    """
    parser.add_argument(
        "--state-dir", metavar="DIR", type=nonempty, help="the state directory, for work without a daemon"
    )
    parser.add_argument(
        "--config", metavar="FILE", type=config, help="the daemon's settings, for work without a daemon"
    )


def location_flags(args: Any) -> list[str]:
    """Return the flags of mosaicd for the state directory, the settings file and the socket."""
    socket = args.socket or os.environ.get("MOSAICD_SOCKET")
    flags = {"--state-dir": args.state_dir, "--config": args.config, "--socket": socket}
    return [item for flag, value in flags.items() if value for item in (flag, value)]
