"""`backup`: have the daemon write a copy of its registry while it works."""

import os
import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.render import clean, to_json
from mosaicctl.sizes import size
from mosaicctl.values import new_file

_EPILOG = """\
The copy is one file, consistent and checked; the daemon keeps answering meanwhile. It has the runs and
their events. Output, checkpoints and videos are files in the state directory and are not copied.

  mosaicctl backup ~/mosaicd-$(date +%F).sqlite3
"""


def arguments(parser: Any) -> None:
    """Add the options of `backup`."""
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=new_file, help="the file to write; the daemon writes it")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def execute(args: Any) -> int:
    """Request the copy and print its content."""
    with connect(args.socket) as client:
        params = {"path": os.path.abspath(args.file), "force": args.force}
        made = client.call("daemon.backup", params, timeout_s=None)
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(made, 2 if args.output == "json" else None))
    elif args.output == "name":
        sys.stdout.write(f"{made['path']}\n")
    else:
        content = f"{made['runs']} runs up to event {made['last_seq']}, {size(made['bytes'])}"
        sys.stdout.write(f"{clean(made['path'])}: {content}\n")
    return 0
