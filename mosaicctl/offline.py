"""The daemon's own program, asked to do what is done without a daemon; the client never opens a registry.

It is the mosaicd beside this client, started by the same interpreter, and never one of the directory that
we happen to stand in.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import mosaicd
from mosaicctl.values import text
from mosaicd.protocol import Json


class Refused(Exception):
    """mosaicd would not do it; the text is what it said."""


def mosaicd_says(*arguments: str) -> Json:
    """Return the document that `mosaicd ARGUMENTS` prints; Refused with its words otherwise."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(mosaicd.__file__)))
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
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
    words = done.stderr.strip() or f"mosaicd printed {done.stdout[:200]!r} instead of JSON"
    raise Refused(words.removeprefix("mosaicd: "))


def location_arguments(parser: Any, config: Callable[[str], str] = text) -> None:
    """Add --state-dir and --config, for a state directory that is not the default one.

    `config` is the argparse type of --config: `doctor` takes any path and reports a missing file, `restore`
    refuses a file that cannot be read.
    """
    parser.add_argument(
        "--state-dir", metavar="DIR", type=text, help="the state directory, for work without a daemon"
    )
    parser.add_argument(
        "--config", metavar="FILE", type=config, help="the daemon's settings, for work without a daemon"
    )


def location_flags(args: Any) -> list[str]:
    """Return the flags of mosaicd for the state directory, the settings file and the socket."""
    socket = args.socket or os.environ.get("MOSAICD_SOCKET")
    flags = {"--state-dir": args.state_dir, "--config": args.config, "--socket": socket}
    return [word for flag, value in flags.items() if value for word in (flag, value)]
